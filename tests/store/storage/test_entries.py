"""Entries in columns equal the original entries, in the order of archives, and are found by their paths."""

import os
import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.storage.base import Entry, Identity
from bentofs.store.storage.entries import Entries, EntriesBuilder

_NUMBER = st.integers(0, 2**64 - 1)
_TIME = st.integers(-(2**62), 2**70)  # years that do not fit in 64 bits of nanoseconds
_IDENTITY = st.builds(Identity, _NUMBER, _NUMBER, st.integers(0, 2**50), _TIME, _TIME)
_NAME = st.sampled_from(["a", "a-", "a.b", "a0", "b", "model.yaml", "ü", "\udcff", "x" * 50])


@st.composite
def _entry_lists(draw: st.DrawFn) -> list[Entry]:
    """Draw files at some paths, and all directories around them. Most sources lie in the model's directory."""
    files = {"/".join(path) for path in draw(st.lists(st.lists(_NAME, min_size=1, max_size=4), max_size=12))}
    folders = {file.rsplit("/", depth)[0] for file in files for depth in range(1, file.count("/") + 1)}
    found = []
    for path in files | folders:
        source = draw(st.sampled_from([f"m/v/{path}", "/elsewhere/x"]))
        if path in folders:
            found.append(Entry(path, True, True, None, source))
        else:
            crc32 = draw(st.none() | st.integers(0, 2**32 - 1))
            found.append(Entry(path, False, draw(st.booleans()), draw(_IDENTITY), source, crc32))
    return draw(st.permutations(found))


def _in_columns(entries: list[Entry]) -> Entries:
    builder = EntriesBuilder("m/v")
    for entry in entries:
        builder.add(*entry)
    return builder.build()


@given(_entry_lists())
def test_they_are_what_was_put_in(entries: list[Entry]) -> None:
    expected = sorted(entries, key=lambda entry: (entry.path != "model.yaml", os.fsencode(entry.path)))
    found = _in_columns(entries)
    assert list(found) == expected
    assert [found[number] for number in range(-len(found), len(found))] == expected * 2
    assert found[1:3] == expected[1:3]
    assert found.size == sum(entry.size for entry in entries)
    assert found.folder_count == sum(entry.is_folder for entry in entries)


@given(_entry_lists(), _NAME)
def test_each_is_found_by_its_path_and_in_its_folder(entries: list[Entry], missing: str) -> None:
    found = _in_columns(entries)
    paths = {entry.path for entry in entries}
    for entry in entries:
        assert found.find(entry.path) == entry
    for path in (missing, f"a/{missing}", "", "zzz"):
        assert (found.find(path) is None) == (path not in paths)
    for folder in ["", *(entry.path for entry in entries if entry.is_folder), "a/zzz"]:
        within = f"{folder}/" if folder else ""
        inside = [entry for entry in found if entry.path.startswith(within)]
        expected = [(entry.path[len(within) :], entry.is_folder) for entry in inside]
        expected = [(name, is_folder) for name, is_folder in expected if "/" not in name]
        assert list(found.children(folder)) == expected
        assert found.folders_in(folder) == sum(is_folder for _, is_folder in expected)


@given(_entry_lists(), st.randoms(use_true_random=False))
def test_equal_ones_have_one_hash_and_others_differ(entries: list[Entry], chance: random.Random) -> None:
    found = _in_columns(entries)
    again = _in_columns(chance.sample(entries, len(entries)))
    assert found == again
    assert hash(found) == hash(again)
    for number, entry in enumerate(entries):
        if entry.identity is not None:
            changed = entry._replace(identity=entry.identity._replace(ctime_ns=entry.identity.ctime_ns + 1))
            assert _in_columns([*entries[:number], changed, *entries[number + 1 :]]) != found
        other = entry._replace(path=f"{entry.path}/other", source=f"{entry.source}/other")
        assert _in_columns([*entries[:number], other, *entries[number + 1 :]]) != found


def test_they_take_what_they_say() -> None:
    """A model of 200,000 files took 108 MB when each file was an object."""
    tracemalloc.start()
    builder = EntriesBuilder("m/v")
    for number in range(50_000):
        builder.add(f"data/{number}", False, False, Identity(1, number, number, 10**18, 10**18), f"m/v/data/{number}")
    entries = builder.build()
    peak = tracemalloc.get_traced_memory()[1]
    del builder
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(entries) == 50_000
    assert 0.8 * taken < entries.weight < 1.2 * taken, f"{taken:,}"
    assert taken < 80 * 50_000
    assert peak < 260 * 50_000
