"""The SHA-256 of whole archives and files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from bentofs.store.formats.pieces import Piece
from bentofs.store.util.aligned_buffer import page_buffer

_READ = 1 << 20  # bytes at a time


def sha256_of(piece: Piece, progress: Callable[[int], object] = lambda _count: None) -> str:
    """Return the SHA-256 of a whole piece, hexadecimal. `progress` is called with the number of bytes of each read."""
    digest = hashlib.sha256()
    buffer = page_buffer(min(_READ, piece.length))
    offset = 0
    while offset < piece.length:
        part = buffer[: min(len(buffer), piece.length - offset)]
        piece.read_into([part], offset)
        digest.update(part)
        offset += len(part)
        progress(len(part))
    return digest.hexdigest()
