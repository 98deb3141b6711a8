"""One pass: all archives' SHA-256s, and each file read once for them."""

import gc
import hashlib
import os
import random
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentofs.store.archives import one_pass
from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import CancelledError, SourceChangedError
from bentofs.store.formats.write.registry import BENTOMODEL, DEFAULT_FORMATS, FORMATS, TAR, TAR_GZ, ZIP, Format
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from tests.harness import make_model, remove_model
from tests.store.at_once import in_threads
from tests.store.content import whole
from tests.store.counting import CountingStorage
from tests.waiting import wait_until_settled

_TAG = Tag("iris", "v1")
_MIB = 1 << 20
_DICE = random.Random(3)


class _Remote(CountingStorage):
    """A storage whose bytes nobody keeps: each read is a transfer."""

    has_page_cache = False


@pytest.fixture(params=[CountingStorage, _Remote], ids=["page cache", "no page cache"])
def storage(store: Path, request: pytest.FixtureRequest) -> CountingStorage:
    made: CountingStorage = request.param(store)
    return made


def _model(storage: CountingStorage) -> Model:
    return ModelStore(storage).model(_TAG)


_sizes = st.one_of(
    st.sampled_from([0, 1, 511, 512, 513, 65_533, 65_536, 65_537, _MIB - 1, _MIB, _MIB + 1]), st.integers(0, _MIB)
)
_files = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "model.yaml.d", "ä", "~"]), min_size=1, max_size=2).map("/".join),
    st.tuples(_sizes, st.sampled_from(["random", "text"])),
    max_size=5,
).filter(lambda files: not any(other.startswith(f"{name}/") for name in files for other in files))


def _content(size: int, kind: str) -> bytes:
    return _DICE.randbytes(size) if kind == "random" else b"".join(b"%d lines\n" % at for at in range(size // 6))[:size]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=_files, compression=st.sampled_from(Compression), order=st.permutations(list(FORMATS.values())))
def test_the_sums_are_those_of_the_bytes(
    storage: CountingStorage,
    store: Path,
    tmp_path: Path,
    files: dict[str, tuple[int, str]],
    compression: Compression,
    order: Sequence[Format],
) -> None:
    kinds = [kind for kind in order if kind.lay_out is not None or compression is not Compression.NEVER]
    make_model(
        store, "iris:v1", dict[str | bytes, bytes | int]((name, _content(*content)) for name, content in files.items())
    )
    model = _model(storage)
    one, other = (Index(tmp_path / name / f"{_DICE.random()}.sqlite") for name in ("one", "other"))
    together, alone = Archives(storage, one, compression), Archives(storage, other, compression)
    try:
        found = together.sha256s(model, kinds)
        assert found == [hashlib.sha256(whole(alone.open(model, kind))).hexdigest() for kind in kinds]
        assert [together.known_sha256(model, kind) for kind in kinds] == found
    finally:
        for each in (together, alone, one, other):
            each.close()
        remove_model(store, "iris:v1")


@pytest.fixture
def archives(storage: CountingStorage, index: Index) -> Iterator[Archives]:
    archives = Archives(storage, index, Compression.NEVER)
    yield archives
    archives.close()


_FILES: dict[str | bytes, bytes | int] = {
    "large": _DICE.randbytes(12 * _MIB + 5),
    **{f"small/{number:03}": _DICE.randbytes(5000) for number in range(300)},
    "zz": _DICE.randbytes(3 * _MIB),
}
_ONCE = [BENTOMODEL, TAR, TAR_GZ]  # a zip's first pass needs CRC-32s ahead


def test_each_small_file_is_read_once_for_all_formats(
    storage: CountingStorage, store: Path, archives: Archives
) -> None:
    make_model(store, "iris:v1", _FILES)
    archives.sha256s(_model(storage), _ONCE)
    assert storage.count("small/007") == 5000
    assert sum(storage.count(f"small/{number:03}") for number in range(300)) == 300 * 5000


def test_each_byte_is_transferred_once_without_a_page_cache(store: Path, index: Index) -> None:
    """Also for a zip, once the CRC-32s are known."""
    make_model(store, "iris:v1", _FILES)
    wait_until_settled(store)
    storage = _Remote(store)
    model = _model(storage)
    archives = Archives(storage, index, Compression.NEVER)
    archives.measure(model, [ZIP], lambda _count: None)
    storage.bytes_read.clear()
    archives.sha256s(model, DEFAULT_FORMATS)
    assert storage.count() == model.size
    archives.close()


def test_an_unknown_checksum_costs_one_more_read_of_a_large_file_only(store: Path, index: Index) -> None:
    make_model(store, "iris:v1", _FILES)
    storage = _Remote(store)
    model = _model(storage)
    archives = Archives(storage, index, Compression.NEVER)
    archives.sha256s(model, DEFAULT_FORMATS)
    assert storage.count("small/007") == 5000
    assert model.size < storage.count() <= 2.1 * model.size
    archives.close()


def test_a_file_that_changes_meanwhile_is_an_error_that_leaves_nothing(
    storage: CountingStorage, store: Path, archives: Archives
) -> None:
    folder = make_model(store, "iris:v1", _FILES)
    model = _model(storage)
    edited = threading.Event()

    def edit(source: str) -> None:
        if source.endswith("small/001") and not edited.is_set():
            edited.set()
            look = (folder / "zz").stat()
            with (folder / "zz").open("r+b") as file:
                file.write(b"EDITED")
            os.utime(folder / "zz", ns=(look.st_atime_ns, look.st_mtime_ns))

    storage.before_read = edit
    with pytest.raises(SourceChangedError):
        archives.sha256s(model, _ONCE)
    assert edited.is_set()
    assert [archives.known_sha256(model, kind) for kind in _ONCE] == [None, None, None]
    after = ModelStore(storage).model(_TAG, max_age=0)
    assert archives.sha256s(after, [TAR, BENTOMODEL])[0] == hashlib.sha256(whole(archives.open(after, TAR))).hexdigest()


@pytest.mark.parametrize("kinds", [_ONCE, [ZIP]], ids=["several", "one"])
def test_many_askers_wait_for_one_pass(
    storage: CountingStorage, store: Path, archives: Archives, kinds: Sequence[Format]
) -> None:
    make_model(store, "iris:v1", _FILES)
    model = _model(storage)
    found = []
    in_threads(lambda _: found.append(archives.sha256s(model, kinds)), range(6))
    assert len(found) == 6
    assert all(each == found[0] for each in found)
    assert storage.count("small/007") == (5000 if len(kinds) > 1 else 10_000), "for the zip's checksum, too"


def test_known_sums_are_not_computed_again(storage: CountingStorage, store: Path, archives: Archives) -> None:
    make_model(store, "iris:v1", _FILES)
    model = _model(storage)
    first = archives.sha256s(model, [TAR, BENTOMODEL])
    storage.bytes_read.clear()
    assert archives.sha256s(model, [BENTOMODEL, TAR]) == first[::-1]
    assert storage.count() == 0
    archives.sha256s(model, _ONCE)
    assert storage.count("small/007") == 5000, "for the third one"


@pytest.mark.parametrize("kinds", [_ONCE, [TAR]], ids=["several", "one"])
def test_the_end_of_the_process_ends_a_pass(
    storage: CountingStorage, store: Path, archives: Archives, kinds: Sequence[Format]
) -> None:
    make_model(store, "iris:v1", _FILES)
    model = _model(storage)
    storage.before_read = lambda _source: archives.close()
    with pytest.raises(CancelledError):
        archives.sha256s(model, kinds)
    assert not any(thread.name.startswith("hash") for thread in threading.enumerate())


def test_small_files_are_read_once_to_compress_them_for_all_formats(store: Path, index: Index) -> None:
    """They are too many to be measured for a second format as well (`is_cheap_at_once`), if only one is wanted."""
    text = _content(_MIB, "text")
    make_model(store, "iris:v1", {f"{number:03}": text[number * 1000 :][:30_000] for number in range(300)})
    wait_until_settled(store)
    storage = CountingStorage(store)
    archives = Archives(storage, index, Compression.AUTO)
    model = _model(storage)
    found = archives.sha256s(model, [TAR, TAR_GZ, ZIP])
    assert storage.count("/007") == 2 * 30_000, "to compress them, and for the tar"
    assert found == [hashlib.sha256(whole(archives.open(model, kind))).hexdigest() for kind in (TAR, TAR_GZ, ZIP)]
    archives.close()


def test_nothing_stays_open_or_in_memory(storage: CountingStorage, store: Path, archives: Archives) -> None:
    """Not until Python collects cyclic garbage: that may take hundreds of models."""
    make_model(store, str(_TAG), {"a/small": b"x" * 1000, "large": _content(3 * _MIB, "text")})
    made: list[weakref.ref[one_pass.Reader]] = []
    shared: list[weakref.ref[one_pass.SharedFiles]] = []

    class Noted(one_pass.Reader):
        def __init__(self, files: one_pass.SharedFiles) -> None:
            super().__init__(files)
            made.append(weakref.ref(self))
            shared.append(weakref.ref(files))

    gc.collect()
    gc.disable()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bentofs.store.archives.sha256s.Reader", Noted)
            archives.sha256s(_model(storage), DEFAULT_FORMATS)
            archives._sources.open_files.let_go()
        assert len(made) == len(DEFAULT_FORMATS)
        assert not any(each() for each in made)
        assert not any(each() for each in shared)
    finally:
        gc.enable()
