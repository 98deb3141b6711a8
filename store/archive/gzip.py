"""gzip around a tar, in *stored* deflate blocks (RFC 1951 section 3.2.4, RFC 1952): one member, all arithmetic.

A block carries 65,531 bytes behind its five-byte header, so that blocks lie on a grid of 64 KiB. The trailer's CRC-32
is put together from those of the tar's pieces (`crc` of `lay_out_gzip`).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable

from store.archive.frames import Frames, Template
from store.archive.pieces import Generated, Literal, Piece, PieceList, Slice

_CELL = 1 << 16
_HEADER_LENGTH = 5
_BLOCK = _CELL - _HEADER_LENGTH  # bytes of content in a cell
_CELLS = 64  # in a frame, so that one read fills a request
# Magic, deflate, no flags, no time, no extra flags, system unknown: the same on every machine.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_TRAILER_LENGTH = 8


def lay_out_gzip(content: Piece, crc: Callable[[], int]) -> PieceList:
    """The gzip member of `content`, whose CRC-32 `crc` gives when the trailer is read; `content` is not empty."""
    frames = Frames(content, _frame())
    pieces = PieceList([Literal(_HEADER), frames])
    # The last block says so, and a frame's blocks do not: something must be left for it.
    start = frames.count * _frame().content_length
    while start < content.length:
        length = min(_BLOCK, content.length - start)
        pieces.append(Literal(_block_header(length, last=start + length == content.length)))
        pieces.append(Slice(content, start, length))
        start += length
    if content.length == frames.count * _frame().content_length:
        pieces.append(Literal(_block_header(0, last=True)))

    def trailer() -> bytes:
        return struct.pack("<II", crc(), content.length & 0xFFFFFFFF)

    pieces.append(Generated(_TRAILER_LENGTH, trailer))
    return pieces


def gzip_length(content_length: int) -> int:
    """The length of the member of so many bytes of content, without laying it out."""
    whole_frames = content_length % _frame().content_length == 0
    blocks = -(-content_length // _BLOCK) + whole_frames
    return len(_HEADER) + content_length + blocks * _HEADER_LENGTH + _TRAILER_LENGTH


@functools.cache
def _frame() -> Template:
    template = Template()
    for _ in range(_CELLS):
        template.add_literal(_block_header(_BLOCK, last=False))
        template.add_content(_BLOCK)
    return template


def _block_header(length: int, *, last: bool) -> bytes:
    return struct.pack("<BHH", last, length, length ^ 0xFFFF)
