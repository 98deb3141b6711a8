"""xz: whole streams around every boundary, and streams of 100 GiB that need not be read."""

import lzma
import random
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write.xz import lay_out_xz, xz_length
from tests.store.content import Memory, Numbered, Unfilled, numbers, whole
from tests.store.formats.laying_out import check_memory, check_ranges
from tests.store.formats.writers import multibyte, write_xz

_BLOCK = 4_194_087  # content of a whole block
_CHUNK = 65_533
_GIB = 1 << 30


@pytest.mark.parametrize(
    "length",
    [1, 2, 3, 4, 5, _CHUNK - 1, _CHUNK, _CHUNK + 1, 65_536, 2 * _CHUNK]
    + [count * _BLOCK + more for count in (1, 2) for more in (-2, -1, 0, 1, 2, _CHUNK)],
)
def test_around_chunks_and_blocks(length: int) -> None:
    content = random.Random(length).randbytes(length)
    laid_out = lay_out_xz(Memory(content))
    stream = whole(laid_out)
    assert laid_out.length == xz_length(length) == len(stream)
    assert stream == write_xz(content)
    assert lzma.decompress(stream, lzma.FORMAT_XZ) == content


@settings(max_examples=30)
@given(st.integers(1, 300_000), st.data())
def test_any_range(length: int, data: st.DataObject) -> None:
    content = numbers(0, length)
    starts = [0, *sorted(data.draw(st.sets(st.integers(1, length), max_size=5)) - {length})]
    expected = write_xz(content, starts)
    assert lzma.decompress(expected, lzma.FORMAT_XZ) == content
    laid_out = lay_out_xz(Memory(content), starts)
    check_ranges(laid_out, expected, data)


@given(st.integers(1, 200 * _GIB), st.data())
def test_length_by_arithmetic_is_the_laid_out_length(length: int, data: st.DataObject) -> None:
    starts = [0, *sorted(data.draw(st.sets(st.integers(1, length), max_size=5)) - {length})]
    assert lay_out_xz(Numbered(length), starts).length == xz_length(length, starts)


def test_many_starts() -> None:
    """More than are laid out at a time."""
    content = numbers(0, 500_000)
    starts = range(0, 400_000, 300)
    laid_out = lay_out_xz(Memory(content), starts)
    expected = write_xz(content, starts)
    assert laid_out.length == xz_length(len(content), starts) == len(expected)
    assert whole(laid_out) == expected
    assert lzma.decompress(expected, lzma.FORMAT_XZ) == content


def test_content_is_read_once() -> None:
    """A checksum is computed from the bytes as they are served."""
    content = Numbered(3 * _BLOCK + 100_000)
    whole(lay_out_xz(content, [0, 1000, 50_000, _BLOCK + 70_000]))
    assert content.bytes_read == content.length


def _number(index: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = index[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


@pytest.mark.parametrize("length", [100 * _GIB, 100 * _GIB + 12_345, 25_000 * _BLOCK])
def test_index_and_any_block_of_100_gib(length: int) -> None:
    content = Numbered(length)
    laid_out = lay_out_xz(content)
    footer = read_bytes(laid_out, laid_out.length - 12, 12)
    crc, backward, flags, magic = struct.unpack("<IIH2s", footer)
    assert (magic, flags) == (b"YZ", 0x100)
    assert crc == zlib.crc32(footer[4:10])
    index_length = 4 * (backward + 1)
    index = read_bytes(laid_out, laid_out.length - 12 - index_length, index_length)
    assert zlib.crc32(index[:-4]) == int.from_bytes(index[-4:], "little")
    assert index[0] == 0
    count, at = _number(index, 1)
    records = []
    for _ in range(count):
        unpadded, at = _number(index, at)
        size, at = _number(index, at)
        records.append((unpadded, size))
    assert not any(index[at:-4])
    assert len(index[at:-4]) < 4
    assert sum(size for _, size in records) == length
    starts = [12]
    for unpadded, _ in records:
        starts.append(starts[-1] + unpadded + -unpadded % 4)
    assert starts.pop() == laid_out.length - 12 - index_length
    assert content.bytes_read == 0, "the index needs no content"

    header = read_bytes(laid_out, 0, 12)
    for number in (0, 1, count // 3, count - 2, count - 1):
        unpadded, size = records[number]
        block = read_bytes(laid_out, starts[number], unpadded + -unpadded % 4)
        of_one = b"\0" + multibyte(1) + multibyte(unpadded) + multibyte(size)
        of_one += bytes(-len(of_one) % 4)
        of_one += struct.pack("<I", zlib.crc32(of_one))
        tail = struct.pack("<I", len(of_one) // 4 - 1) + b"\0\1"
        stream = header + block + of_one + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"
        start = sum(size for _, size in records[:number])
        assert lzma.decompress(stream, lzma.FORMAT_XZ) == numbers(start, size)


def test_a_checksum_is_served_alone_and_in_part() -> None:
    content = numbers(0, 2 * _BLOCK + 10)
    expected = write_xz(content)
    at = 12 + (4 << 20) - 4  # of the first block
    for first in range(5):
        for last in range(first, 5):
            laid_out = lay_out_xz(Memory(content))
            assert read_bytes(laid_out, at + first, last - first) == expected[at + first : at + last]


def test_memory_does_not_grow_with_the_content() -> None:
    check_memory(lambda length: lay_out_xz(Unfilled(length)), most=4 << 20, spread=2000)
