"""PieceFile: a piece as a raw, seekable, read-only file of Python.

Threading: one thread at a time may use a file.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from bentofs.store.formats.pieces import Piece

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class PieceFile(io.RawIOBase):
    """A file with the bytes of a piece. A read moves the bytes that are asked for, and no others."""

    mode = "rb"

    def __init__(self, piece: Piece) -> None:
        super().__init__()
        self._piece = piece
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._piece.length}
        if whence not in origins:
            raise ValueError(f"whence must be 0, 1 or 2, not {whence}")
        position = origins[whence] + offset
        if position < 0:
            raise ValueError(f"cannot seek to {position}, before the beginning of the file")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._piece.length - self._position))
        if count:
            self._piece.read_into([view[:count]], self._position)
            self._position += count
        return count
