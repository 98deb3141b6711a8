"""RangeFile: ranges of bytes on disk, as pairs. The union of the pairs counts. If a process is killed at any moment,
the file can only miss ranges.

Threading: one thread at a time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress

from bentofs.store.util.fs import sync_path

_PAIR = struct.Struct("<QQ")
_NEW = ".new"


class RangeFile:
    """The ranges of one file. Nothing is on disk before `start`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self.pairs = 0  # on disk, overlapping ones included

    @property
    def is_started(self) -> bool:
        """True if the ranges are kept on disk."""
        return self._descriptor is not None

    def load(self) -> list[tuple[int, int]] | None:
        """Open the file and return its pairs; None if there is none."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        self._descriptor = descriptor
        size = os.fstat(descriptor).st_size
        content = os.pread(descriptor, size, 0)
        whole = len(content) // _PAIR.size * _PAIR.size
        if whole < size:  # the disk was full in the middle of a pair
            os.ftruncate(descriptor, whole)
        self.pairs = whole // _PAIR.size
        return [(start, end) for start, end in _PAIR.iter_unpack(content[:whole]) if start < end < 1 << 63]

    def start(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Create the file, and sync it to disk. Raises OSError."""
        self.rewrite(pairs)
        self.sync()
        sync_path(os.path.dirname(self._path))

    def append(self, start: int, end: int) -> None:
        """Add a range. Raises OSError."""
        if self._descriptor is None:
            raise RuntimeError("the file of ranges was not started")
        if os.write(self._descriptor, _PAIR.pack(start, end)) < _PAIR.size:
            os.ftruncate(self._descriptor, self.pairs * _PAIR.size)
            os.write(self._descriptor, _PAIR.pack(start, end))  # raises the reason of the short write
        self.pairs += 1

    def rewrite(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Replace all ranges at once. Raises OSError."""
        content = b"".join(_PAIR.pack(start, end) for start, end in pairs)
        descriptor = os.open(
            self._path + _NEW, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            written = os.write(descriptor, content)
            while written < len(content):
                written += os.write(descriptor, content[written:])
            os.rename(self._path + _NEW, self._path)
        except BaseException:
            os.close(descriptor)
            with suppress(FileNotFoundError):
                os.unlink(self._path + _NEW)
            raise
        self.close()
        self._descriptor, self.pairs = descriptor, len(content) // _PAIR.size

    def sync(self) -> None:
        """Sync the ranges to disk."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file. It stays on disk."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)
