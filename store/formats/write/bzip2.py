"""bzip2 around a tar: consecutive streams, like those of `pbzip2`. Every reader takes them for one stream."""

from __future__ import annotations

import bz2
import functools

from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.pieces import Piece, PieceList
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Chunks, Codec, Measured, put_in_order

_LEVEL = 9
_CHUNK = 899_900  # bytes of content: slightly less than a block of level 9 holds


def lay_out_bzip2(content: Piece, maker: ChunkMaker, measured: Measured) -> PieceList:
    """Lay out the bzip2 streams of `content`."""
    streams = Chunks(maker, codec(), content, measured)
    put_in_order([streams])
    return PieceList([streams])


@functools.cache
def codec() -> Codec:
    probe = _encode(memoryview(bytes(range(256)) * 64 + b"probe" * 1000), 0, b"")
    return Codec(f"bzip2 {_LEVEL} {_CHUNK} {crc32(probe):08x}", _CHUNK, _encode)


def _encode(content: memoryview, _number: int, _before: bytes) -> bytes:
    return bz2.compress(content, _LEVEL)
