"""A file that arrives over a network gives the same bytes as a complete one, in whatever order it is read."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.errors import DamagedArchiveError, RemoteError
from bentofs.store.transfer import stream_buffer as streamed
from bentofs.store.transfer.stream_buffer import StreamedFile


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "_AHEAD", 50)
    monkeypatch.setattr(streamed, "_BEHIND", 20)
    monkeypatch.setattr(streamed, "_BACK", 7)


def cut(content: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = number = 0
    while at < len(content):
        size = sizes[number % len(sizes)]
        yield content[at : at + size]
        at += size
        number += 1


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("how", ["seeks", "keeps a zip"])
@settings(max_examples=60)
@given(data=st.data())
def test_any_reads(tmp_path_factory: pytest.TempPathFactory, how: str, data: st.DataObject) -> None:
    content = b"PK" + data.draw(st.binary(max_size=400))
    sizes = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=5))
    told: list[int] = []
    read_at: Callable[[int, int], bytes] | None = None
    if how == "seeks":
        read_at = lambda offset, size: content[offset : offset + size]  # noqa: E731
    file = StreamedFile(
        cut(content, sizes),
        data.draw(st.sampled_from([None, len(content)])) if read_at is None else len(content),
        read_at=read_at,
        spool=str(tmp_path_factory.getbasetemp()),
        progress=told.append,
    )
    try:
        for offset, size in data.draw(st.lists(st.tuples(st.integers(0, 450), st.integers(0, 80)), max_size=12)):
            view = memoryview(bytearray(size))
            count = file.read_into(view, offset)
            expected = content[offset : offset + size]
            assert bytes(view[:count]) == expected[:count]
            assert (count > 0) == (len(expected) > 0)
        assert file.length() == len(content)
        assert file.sha256() == hashlib.sha256(content).hexdigest()
        assert sum(told) == len(content)
    finally:
        file.close()


@pytest.mark.usefixtures("small_windows")
def test_what_never_was_a_zip_is_not_kept(tmp_path: Path) -> None:
    file = StreamedFile(cut(bytes(1000), [10]), None, read_at=None, spool=str(tmp_path), progress=lambda _count: None)
    assert file.read_into(memoryview(bytearray(10)), 900) == 10
    with pytest.raises(DamagedArchiveError, match="stream"):
        file.read_into(memoryview(bytearray(10)), 0)
    file.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("claimed", [999, 1001])
def test_another_length_than_was_told(tmp_path: Path, claimed: int) -> None:
    file = StreamedFile(
        cut(bytes(1000), [10]), claimed, read_at=None, spool=str(tmp_path), progress=lambda _count: None
    )
    with pytest.raises(DamagedArchiveError, match="only"):
        file.sha256()
    file.close()


def test_an_error_comes_after_what_came_before_it(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise RemoteError("gone")

    file = StreamedFile(broken(), None, read_at=None, spool=str(tmp_path), progress=lambda _count: None)
    view = memoryview(bytearray(10))
    assert file.read_into(view, 0) == 3
    with pytest.raises(RemoteError, match="gone"):
        file.read_into(view, 3)
    with pytest.raises(RemoteError, match="gone"):
        file.sha256()
    file.close()
