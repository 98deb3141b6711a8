"""Reading back own xz streams, compared with liblzma, and damage at any place in them."""

import io
import lzma
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.cursor import Cursor
from bentofs.store.formats.read.decode import open_stream
from bentofs.store.formats.read.detect import ArchiveKind
from bentofs.store.formats.read.xz import is_laid_out_here, stored_content
from bentofs.store.formats.write.xz import lay_out_xz
from tests.store.content import Memory, whole

_BLOCK = 4_194_087  # content of a whole block
_CHUNK = 65_533
_CONTENT = random.Random(1).randbytes(2 * _BLOCK + _CHUNK + 100)
_STREAM = whole(lay_out_xz(Memory(_CONTENT)))


class _Arrived:
    """A complete file. Each read returns at most a given number of bytes."""

    def __init__(self, content: bytes, most: int = 1 << 30) -> None:
        self._file = io.BytesIO(content)
        self._most = most

    def read_into(self, view: memoryview, offset: int) -> int:
        self._file.seek(offset)
        return self._file.readinto(view[: self._most])

    def length(self) -> int:
        return len(self._file.getvalue())

    def fileno(self) -> int:
        raise AssertionError("nothing of it lies in a file as it is")

    def take_memory(self, amount: int) -> int:
        return amount


def _read_back(stream: bytes, most: int = 1 << 30) -> bytes:
    source = Cursor(_Arrived(stream, most))
    assert is_laid_out_here(source)
    content = b"".join(stored_content(source))
    assert source.position == len(stream)
    return content


@pytest.mark.parametrize(
    "length", [count * _BLOCK + more for count in (1, 2) for more in (0, 1, 2, 3, 4, _CHUNK, _CHUNK + 1, 3 * _CHUNK)]
)
def test_content_comes_back(length: int) -> None:
    content = _CONTENT[:length]
    assert _read_back(whole(lay_out_xz(Memory(content)))) == content


@settings(max_examples=20, deadline=None)
@given(st.sets(st.integers(1, 300_000), max_size=20))
def test_parts_with_grids_of_their_own_come_back(starts: set[int]) -> None:
    content = _CONTENT[:300_001]
    assert _read_back(whole(lay_out_xz(Memory(content), [0, *sorted(starts)]))) == content


def test_short_reads() -> None:
    assert _read_back(_STREAM, 50_000) == _CONTENT


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        _STREAM[:20],
        lzma.compress(_CONTENT[: 2 * _CHUNK], check=lzma.CHECK_CRC32),
    ],
    ids=["empty", "cut", "liblzma's"],
)
def test_others_are_left_to_liblzma(stream: bytes) -> None:
    source = Cursor(_Arrived(stream))
    assert not is_laid_out_here(source)
    assert source.position == 0


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_damage_is_never_missed(data: st.DataObject) -> None:
    places = st.one_of(
        st.integers(32, len(_STREAM) - 1),
        st.integers(len(_STREAM) - 60, len(_STREAM) - 1),  # index and footer
        st.sampled_from([12 + 4_194_304, 12 + 4_194_303, 12 + 2 * 4_194_304, 12 + 2 * 4_194_304 + 21, 33, 34, 65_568]),
    )
    at = data.draw(places)
    damaged = bytearray(_STREAM)
    damaged[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedArchiveError):
        _read_back(bytes(damaged))
    with pytest.raises(lzma.LZMAError):
        lzma.decompress(damaged)


@settings(max_examples=20, deadline=None)
@given(st.integers(32, len(_STREAM) - 1))
def test_cuts_are_never_missed(length: int) -> None:
    with pytest.raises(DamagedArchiveError, match="cut short"):
        _read_back(_STREAM[:length])


def test_what_follows_is_read_on() -> None:
    stream = _STREAM + bytes(8) + lzma.compress(b"more") + _STREAM
    opened = open_stream(_Arrived(stream), ArchiveKind.XZ)
    assert opened.exactly(len(stream)) == _CONTENT + b"more" + _CONTENT
