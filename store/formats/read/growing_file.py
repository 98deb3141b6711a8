"""Files that are read while they still arrive: what uploads, and files that are there whole, have in common.

Threading: one reader, any number of writers elsewhere.
"""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

LITTLE_MEMORY = 10 << 20  # bytes for a decoder: enough for `xz -6`, the default, whose dictionary is 8 MiB
MOST_MEMORY = 68 << 20  # bytes: enough for `xz -9`, whose dictionary is 64 MiB


class ArrivingFile(Protocol):
    """A file whose bytes come in from the start on, and whose end is not known yet."""

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill as much of `view` as is there from `offset` on; wait until that is one byte at least.

        Returns:
            How many bytes were filled in: 0 only for an empty view, or at or behind the true end.

        Raises:
            CancelledError: no more will come, and what came is not wanted.
        """

    def length(self) -> int:
        """Wait until all is there. Bytes; the same errors as `read_into`."""

    def fileno(self) -> int | None:
        """The descriptor that holds the bytes, at the same offsets; open as long as the file is read. None if no file
        holds them."""

    def take_memory(self, amount: int) -> int:
        """Wait until a decoder of the file may take so many bytes of memory, LITTLE_MEMORY or MOST_MEMORY, instead of
        what was taken before.

        Returns:
            How many it may take: `amount` at least.

        Raises:
            CancelledError: as `read_into`.
        """


@runtime_checkable
class DigestedFile(ArrivingFile, Protocol):
    """One that makes its own digest as its bytes pass."""

    def sha256(self) -> str:
        """The SHA-256 of all, hexadecimal, once all has come; the same errors as `read_into`."""


class WholeFile:
    """A file that is all there."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: of a regular file, open for reading; it stays the caller's to close."""
        self._descriptor = descriptor

    def read_into(self, view: memoryview, offset: int) -> int:
        return os.preadv(self._descriptor, [view], offset) if view else 0

    def length(self) -> int:
        return os.fstat(self._descriptor).st_size

    def fileno(self) -> int:
        return self._descriptor

    def take_memory(self, amount: int) -> int:
        return max(amount, MOST_MEMORY)
