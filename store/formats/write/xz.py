"""xz around a tar, with *uncompressed* LZMA2 chunks: BentoML calls it `.bentomodel`. (Compressed: `xz_blocks.py`.)

BentoML opens every `.bentomodel` with `compression="xz"`. Its own export spends minutes to save a few percent of a
model's weights. A stream of uncompressed chunks is valid xz (The .xz File Format 1.1.0, sections 2 to 4; LZMA2 chunks
as in liblzma's lzma2_decoder.c), and its layout is pure arithmetic.

A chunk carries at most 65,536 bytes after a three-byte header. Only 65,533 are used, so that chunks lie on a grid of
64 KiB. A block fills 64 cells of the grid, including its header and checksum. So it is 4 MiB long in the file.

The grid begins anew at some places of the content (`store.formats.write.grid`): the block before each place is
shorter.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence

from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.pieces import Literal, Piece, PieceList, Slice
from bentofs.store.formats.write.frames import Frame, Frames, Template
from bentofs.store.formats.write.grid import parts_of
from bentofs.store.formats.write.segments import lay_out_in_segments
from bentofs.store.formats.write.xz_index import FOOTER_LENGTH, STREAM_FLAGS, Index, number, stored_length

CELL = 1 << 16
CHUNK = CELL - 3  # bytes of content in a cell
CELLS = 64  # in a block
_FIRST, _NEXT = b"\x01", b"\x02"  # uncompressed chunk: with and without a dictionary reset
END = b"\x00"
CHECK_LENGTH = 4
_LZMA2 = b"\x21\x01\x08"  # filter ID, size of properties, dictionary of 64 KiB, which every decoder accepts
STREAM_HEADER = b"\xfd7zXZ\x00" + STREAM_FLAGS + struct.pack("<I", crc32(STREAM_FLAGS))
_TAIL_PARTS_KEPT = 512  # of the layout of a short block: there may be many


def lay_out_xz(content: Piece, starts: Sequence[int] = (0,)) -> PieceList:
    """Lay out the xz stream of `content`. `starts`: the places where the grid begins anew; the first one is 0."""
    template, _ = _full_block()

    def lay_out(numbers: range) -> PieceList:
        pieces = PieceList()
        for start, length in parts_of(content.length, starts, numbers):
            tail = length % template.content_length
            pieces.append(Frames(Slice(content, start, length - tail), template))
            if tail:
                pieces.append(Frame(Slice(content, start + length - tail, tail), _block_length(tail), _tail_template))
        return pieces

    def laid_out_length(numbers: range) -> int:
        return sum(_part_length(length) for _, length in parts_of(content.length, starts, numbers))

    pieces = PieceList([Literal(STREAM_HEADER)])
    pieces.append(lay_out_in_segments(len(starts), lay_out, laid_out_length))
    for piece in _index_of(content.length, starts).pieces():
        pieces.append(piece)
    return pieces


def xz_length(content_length: int, starts: Sequence[int] = (0,)) -> int:
    """Return the length of the stream for `content_length` bytes of content, without laying it out."""
    template, record = _full_block()
    blocks = count = records = 0
    for _, length in parts_of(content_length, starts, range(len(starts))):
        whole, tail = divmod(length, template.content_length)
        blocks += whole * template.length
        records += whole * len(record)
        count += whole
        if tail:
            blocks += _block_length(tail)
            records += len(block_record(tail))
            count += 1
    index = 1 + len(number(count)) + records
    return len(STREAM_HEADER) + blocks + stored_length(index) + 4 + FOOTER_LENGTH


def _part_length(length: int) -> int:
    """Return the length of the blocks of one part."""
    template, _ = _full_block()
    count, tail = divmod(length, template.content_length)
    return count * template.length + (_block_length(tail) if tail else 0)


@functools.cache
def full_block_header() -> bytes:
    """Return the header of every block except the last."""
    header = b""
    for _ in range(4):  # the header holds the content's size, which depends on the header's length
        compressed = CELLS * CELL - len(header) - CHECK_LENGTH
        header = block_header(compressed, compressed - 3 * CELLS - len(END))
    return header


@functools.cache
def _full_block() -> tuple[Template, bytes]:
    """Return the layout of a whole block, and its record in the index."""
    header = full_block_header()
    template = Template()
    template.add_literal(header)
    for cell in range(CELLS):
        length = CELL - len(header) - 3 - len(END) - CHECK_LENGTH if cell == CELLS - 1 else CHUNK
        template.add_literal(chunk_header(cell == 0, length))
        template.add_content(length)
    template.add_literal(END)
    template.add_checksum()
    return template, number(template.length) + number(template.content_length)


@functools.lru_cache(maxsize=16)
def _tail_template(length: int) -> Template:
    """Return the layout of the last block of a part."""
    template = Template(_TAIL_PARTS_KEPT)
    template.add_literal(block_header(compressed_length(length), length))
    start = template.length
    for at in range(0, length, CHUNK):
        size = min(CHUNK, length - at)
        template.add_literal(chunk_header(at == 0, size))
        template.add_content(size)
        if size == CHUNK and at:
            template.repeat(start + CELL, template.length, CELL, CHUNK)
    template.add_literal(END + block_padding(length))
    template.add_checksum()
    return template


def _index_of(content_length: int, starts: Sequence[int]) -> Index:
    template, record = _full_block()
    index = Index()
    for _, length in parts_of(content_length, starts, range(len(starts))):
        count, tail = divmod(length, template.content_length)
        index.add(record, count)
        if tail:
            index.add(block_record(tail))
    return index


def block_header(compressed: int, uncompressed: int, lzma2: bytes = _LZMA2) -> bytes:
    """Return a block header. `lzma2`: the filter's ID, the size of its properties, and the properties."""
    fields = b"\xc0" + number(compressed) + number(uncompressed) + lzma2  # 0xc0: both sizes are present, one filter
    length = stored_length(1 + len(fields) + 4)
    header = bytes([length // 4 - 1]) + fields
    header += bytes(length - 4 - len(header))
    return header + struct.pack("<I", crc32(header))


def block_padding(length: int) -> bytes:
    """Return the padding between data and checksum of a block with `length` bytes of content."""
    return bytes(-_unpadded_size(length) % 4)


def chunk_header(first: bool, length: int) -> bytes:
    """Return the header of a chunk with `length` bytes. `first`: it is the first in its block."""
    return (_FIRST if first else _NEXT) + struct.pack(">H", length - 1)


def compressed_length(length: int) -> int:
    """Return the bytes of LZMA2 data for `length` bytes of content in one block."""
    return length + 3 * -(-length // CHUNK) + len(END)


def _unpadded_size(length: int) -> int:
    """Return a block's size as in the index: without the padding."""
    compressed = compressed_length(length)
    return len(block_header(compressed, length)) + compressed + CHECK_LENGTH


def _block_length(length: int) -> int:
    """Return the length of a block with `length` bytes of content."""
    return stored_length(_unpadded_size(length))


def block_record(length: int) -> bytes:
    """Return the record of a block in the index."""
    return number(_unpadded_size(length)) + number(length)
