"""Files that are read while they still arrive: the common interface of uploads and of complete files.

Threading: one reader, any number of writers elsewhere.
"""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

LITTLE_MEMORY = 10 << 20  # bytes for a decoder: enough for `xz -6`, the default, whose dictionary is 8 MiB
MOST_MEMORY = 68 << 20  # bytes: enough for `xz -9`, whose dictionary is 64 MiB


class ArrivingFile(Protocol):
    """A file whose bytes arrive in order, and whose end is not known yet."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill `view` with the bytes that are there from `offset` on. Wait for at least one byte.

        Returns:
            The number of bytes filled in: 0 only for an empty view, or at or after the true end.

        Raises:
            CancelledError: no more bytes will arrive, and the bytes so far are not wanted.
        """

    def length(self) -> int:
        """Wait for the whole file and return its length in bytes. Raises the same errors as `read_into`."""

    def fileno(self) -> int | None:
        """Return the descriptor that holds the bytes, at the same offsets; None if no file holds them.

        It stays open while the file is read.
        """

    def take_memory(self, amount: int) -> int:
        """Wait until a decoder of the file may take `amount` bytes of memory, LITTLE_MEMORY or MOST_MEMORY.

        This replaces the amount taken before.

        Returns:
            The bytes it may take: at least `amount`.

        Raises:
            CancelledError: see `read_into`.
        """


@runtime_checkable
class DigestedFile(ArrivingFile, Protocol):
    """A file that computes its own digest while its bytes pass."""

    def sha256(self) -> str:
        """Return the SHA-256 in hexadecimal, once all bytes have arrived. Raises the same errors as `read_into`."""


class WholeFile:
    """A complete file."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: of a regular file, open for reading. The caller must close it."""
        self._descriptor = descriptor

    def read_into(self, view: memoryview, offset: int) -> int:
        return os.preadv(self._descriptor, [view], offset) if view else 0

    def length(self) -> int:
        return os.fstat(self._descriptor).st_size

    def fileno(self) -> int:
        return self._descriptor

    def take_memory(self, amount: int) -> int:
        return max(amount, MOST_MEMORY)
