"""gzip around a tar (RFC 1952): one member of *stored* deflate blocks, or with compressed chunks between them.

A stored block (RFC 1951 section 3.2.4) carries 65,531 bytes after its five-byte header. So blocks lie on a grid of
64 KiB, which begins anew at some places of the content, and the layout is pure arithmetic. The trailer's CRC-32 is
combined from the CRC-32s of the tar's pieces.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence

from bentofs.store.formats.pieces import Generated, Literal, Piece, PieceList, Slice
from bentofs.store.formats.write.deflate import END
from bentofs.store.formats.write.frames import Frames, Template
from bentofs.store.formats.write.grid import parts_of
from bentofs.store.formats.write.segments import lay_out_in_segments

_CELL = 1 << 16
_HEADER_LENGTH = 5
_BLOCK = _CELL - _HEADER_LENGTH  # bytes of content in a cell
_CELLS = 64  # in a frame, so that one read serves a request
# Magic, deflate, no flags, no time, no extra flags, unknown system: the same on every machine.
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_TRAILER_LENGTH = 8


def lay_out_gzip(content: Piece, crc: Callable[[], int], starts: Sequence[int] = (0,)) -> PieceList:
    """Lay out the gzip member of `content`, stored and not empty. `crc` is called for its CRC-32 on a trailer read.
    `starts`: the places where the grid begins anew (`store.formats.write.grid`); the first one is 0."""

    def lay_out(numbers: range) -> PieceList:
        pieces = PieceList()
        for start, length in parts_of(content.length, starts, numbers):
            append_stored(pieces, Slice(content, start, length), last=start + length == content.length)
        return pieces

    blocks = lay_out_in_segments(len(starts), lay_out, lambda numbers: _blocks_length(content.length, starts, numbers))
    return PieceList([Literal(HEADER), blocks, _trailer(content, crc)])


def lay_out_gzip_of(stream: Piece, content: Piece, crc: Callable[[], int]) -> PieceList:
    """Lay out the gzip member of `content`. `stream`: its deflate stream, except the last block."""
    return PieceList([Literal(HEADER), stream, Literal(END), _trailer(content, crc)])


def stored_length(length: int) -> int:
    """Return the length of the stored blocks of `length` bytes of content, unless the last one ends the stream."""
    return length + -(-length // _BLOCK) * _HEADER_LENGTH


def append_stored(pieces: PieceList, content: Piece, *, last: bool = False) -> None:
    """Append stored blocks. `last`: the last block ends the stream."""
    frames = Frames(content, _frame())
    pieces.append(frames)
    # The last block has a mark, and a frame's blocks have none. So some content must be left for it.
    start = frames.count * _frame().content_length
    while start < content.length:
        length = min(_BLOCK, content.length - start)
        pieces.append(Literal(_block_header(length, last=last and start + length == content.length)))
        pieces.append(Slice(content, start, length))
        start += length
    if last and content.length == frames.count * _frame().content_length:
        pieces.append(Literal(_block_header(0, last=True)))


def _trailer(content: Piece, crc: Callable[[], int]) -> Generated:
    return Generated(_TRAILER_LENGTH, lambda: struct.pack("<II", crc(), content.length & 0xFFFFFFFF))


def gzip_length(content_length: int, starts: Sequence[int] = (0,)) -> int:
    """Return the length of the member for `content_length` bytes of content, without laying it out."""
    return len(HEADER) + _blocks_length(content_length, starts, range(len(starts))) + _TRAILER_LENGTH


def _blocks_length(content_length: int, starts: Sequence[int], numbers: range) -> int:
    """Return the length of the stored blocks of the parts with these numbers. The last block is not a frame's."""
    length = sum(stored_length(part) for _, part in parts_of(content_length, starts, numbers))
    is_last = numbers.stop == len(starts)
    return length + (_HEADER_LENGTH if is_last and not (content_length - starts[-1]) % _frame().content_length else 0)


@functools.cache
def _frame() -> Template:
    template = Template()
    for _ in range(_CELLS):
        template.add_literal(_block_header(_BLOCK, last=False))
        template.add_content(_BLOCK)
    return template


def _block_header(length: int, *, last: bool) -> bytes:
    return struct.pack("<BHH", last, length, length ^ 0xFFFF)
