"""xz around a tar, compressed: blocks of 1 MiB, each made and read separately.

Block header and index are laid out as in `xz.py`. The block's LZMA2 data comes from liblzma.
"""

from __future__ import annotations

import functools
import lzma
import struct

from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.pieces import Literal, Piece, PieceList
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Chunks, Codec, Measured, put_in_order
from bentofs.store.formats.write.xz import (
    CHECK_LENGTH,
    STREAM_HEADER,
    block_header,
)
from bentofs.store.formats.write.xz_index import Index, number, stored_length

_CHUNK = 1 << 20  # bytes of content in a block, and of the dictionary: a random read must compress a block again
_PRESET = 2  # of xz; 3 and above take up to ten times the time and memory, and save 2 to 10 %
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": _PRESET, "dict_size": _CHUNK}]
_LZMA2 = b"\x21\x01\x10"  # filter ID, size of properties, dictionary of 1 MiB


def lay_out_xz_blocks(content: Piece, maker: ChunkMaker, measured: Measured) -> PieceList:
    """Lay out the compressed xz stream of `content`."""
    blocks = Chunks(maker, codec(), content, measured)
    put_in_order([blocks])
    index = Index()
    for block, unpadded in enumerate(measured.sizes):
        index.add(number(unpadded) + number(blocks.content_length(block)))
    return PieceList([Literal(STREAM_HEADER), blocks, *index.pieces()])


@functools.cache
def codec() -> Codec:
    """Return the codec. Its measurement keeps a block's size as in the index, without the padding."""
    probe = _encode(memoryview(bytes(range(256)) * 64 + b"probe" * 1000), 0, b"")
    name = f"xz {_PRESET} {_CHUNK} {crc32(probe):08x}"  # Python has no version of liblzma; its output identifies it
    return Codec(name, _CHUNK, _encode, _unpadded_size, stored_length)


def _encode(content: memoryview, _number: int, _before: bytes) -> bytes:
    compressed = lzma.compress(content, lzma.FORMAT_RAW, filters=_FILTERS)
    header = block_header(len(compressed), len(content), _LZMA2)
    padding = bytes(stored_length(len(compressed)) - len(compressed))
    return header + compressed + padding + struct.pack("<I", crc32(content))


def _unpadded_size(block: bytes) -> int:
    compressed = shift = 0
    for byte in block[2:]:
        compressed |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return (block[0] + 1) * 4 + compressed + CHECK_LENGTH
