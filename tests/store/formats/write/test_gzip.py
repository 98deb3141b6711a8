"""gzip: whole members around every boundary, and lengths and blocks past 4 GiB."""

import gzip
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write.gzip import gzip_length, lay_out_gzip
from tests.store.content import Memory, Numbered, numbers, whole
from tests.store.formats.laying_out import check_ranges
from tests.store.formats.writers import write_gzip

_BLOCK = 65_531
_FRAME = 64 * _BLOCK
_GIB = 1 << 30


@pytest.mark.parametrize(
    "length",
    [1, 2, _BLOCK - 1, _BLOCK, _BLOCK + 1, 65_536, 2 * _BLOCK]
    + [count * _FRAME + more for count in (1, 2) for more in (-1, 0, 1, _BLOCK)],
)
def test_around_blocks_and_frames(length: int) -> None:
    content = Memory(random.Random(length).randbytes(length))
    laid_out = lay_out_gzip(content, content.crc32)
    member = whole(laid_out)
    assert laid_out.length == gzip_length(length) == len(member)
    assert member == write_gzip(content.content)
    assert gzip.decompress(member) == content.content


@settings(max_examples=30)
@given(st.integers(1, 300_000), st.data())
def test_any_range(length: int, data: st.DataObject) -> None:
    content = Memory(numbers(0, length))
    starts = [0, *sorted(data.draw(st.sets(st.integers(1, length), max_size=5)) - {length})]
    expected = write_gzip(content.content, starts)
    assert gzip.decompress(expected) == content.content
    laid_out = lay_out_gzip(content, content.crc32, starts)
    check_ranges(laid_out, expected, data)


@given(st.integers(1, 200 * _GIB), st.data())
def test_length_by_arithmetic_is_the_laid_out_length(length: int, data: st.DataObject) -> None:
    starts = [0, *sorted(data.draw(st.sets(st.integers(1, length), max_size=5)) - {length})]
    assert lay_out_gzip(Numbered(length), lambda: 0, starts).length == gzip_length(length, starts)


def test_the_checksum_is_asked_for_only_when_the_trailer_is_read() -> None:
    asked = []
    content = Memory(numbers(0, 5 * _FRAME))

    def crc() -> int:
        asked.append(1)
        return content.crc32()

    laid_out = lay_out_gzip(content, crc)
    read_bytes(laid_out, 0, laid_out.length - 8)
    assert asked == []
    trailer = read_bytes(laid_out, laid_out.length - 8, 8)
    assert trailer == struct.pack("<II", zlib.crc32(content.content), 5 * _FRAME)
    assert asked == [1]


@pytest.mark.parametrize("length", [4 * _GIB - 1, 4 * _GIB, 100 * _GIB + 5, 30_000 * _FRAME])
def test_any_block_of_what_is_past_4_gib(length: int) -> None:
    content = Numbered(length, crc=0xDEADBEEF)
    laid_out = lay_out_gzip(content, content.crc32)
    assert read_bytes(laid_out, laid_out.length - 8, 8) == struct.pack("<II", 0xDEADBEEF, length % 2**32)
    assert content.bytes_read == 0
    whole_blocks = length // _BLOCK
    for number in (0, 1, whole_blocks // 2, whole_blocks - 1):
        at = 10 + number * (_BLOCK + 5)
        block = read_bytes(laid_out, at, 5 + _BLOCK)
        final, size, complement = struct.unpack("<BHH", block[:5])
        assert (size, complement) == (_BLOCK, _BLOCK ^ 0xFFFF)
        assert final == (number == -(-length // _BLOCK) - 1 and length % _FRAME != 0)
        assert block[5:] == numbers(number * _BLOCK, _BLOCK)
    rest = length - whole_blocks * _BLOCK
    end = read_bytes(laid_out, 10 + whole_blocks * (_BLOCK + 5), laid_out.length - 8 - 10 - whole_blocks * (_BLOCK + 5))
    if rest or length % _FRAME == 0:
        assert end[:5] == struct.pack("<BHH", 1, rest, rest ^ 0xFFFF)
        assert end[5:] == numbers(length - rest, rest)
    else:
        assert end == b""
