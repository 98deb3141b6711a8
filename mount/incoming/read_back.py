"""ReadBack: the bytes of uploads that were just imported, for programs that read back their writes.

With several streams, rclone hashes a file after it has closed it. If it cannot, it calls the copy corrupted. An
imported file has left the spool. So it stays readable for a moment, and for as long as somebody reads it. Its blocks
are not free meanwhile. So only few files are kept, and only while much more room is left. All are dropped when room is
needed.

Files are known by their receipts. A name that was given to another import never gives these bytes.

Knows no FUSE. Threading: any thread. Files are closed outside the lock, because closing may take long.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

from bentofs.store.errors import NoSpaceError

_SECONDS = 30.0  # that a file is kept
MOST_FILES = 32  # each has a descriptor
_SHARE = 4  # the files may take one part in so many of the free room


def free_room(path: str) -> int:
    """Return the free bytes of the file system that holds a directory."""
    figures = os.statvfs(path)
    return figures.f_bavail * figures.f_frsize


@dataclass
class _File:
    descriptor: int
    size: int  # bytes
    until: float  # monotonic
    readers: int = 0
    is_dropped: bool = False


class ReadBack:
    """The kept files of one spool."""

    def __init__(self, spool: str) -> None:
        """`spool`: the directory on whose disk the files lie."""
        self._spool = spool
        self._lock = threading.Lock()
        self._files: dict[int, _File] = {}  # by receipt; the oldest first

    def make_room(self, wanted: int) -> None:
        """Raise NoSpaceError if the disk has no room for so many bytes. Drop the kept files if that gives room."""
        if free_room(self._spool) >= wanted:
            return
        self.drop()
        if free_room(self._spool) < wanted:
            raise NoSpaceError("there is no room left in the store's file system for the upload and the model in it")

    def keep(self, receipt: int, descriptor: int) -> None:
        """Keep the bytes of an import for a moment. This closes the descriptor, now or later. `receipt`: 0 if the
        import has none; then nobody could read it."""
        size = os.fstat(descriptor).st_size
        if not receipt or size > free_room(self._spool) // _SHARE:
            os.close(descriptor)
            return
        with self._lock:
            self._files[receipt] = _File(descriptor, size, time.monotonic() + _SECONDS)

    def open(self, receipt: int) -> bool:
        """Begin to read the import of a receipt. Return False if its bytes are gone."""
        with self._lock:
            file = self._files.get(receipt)
            if file is None or file.is_dropped:
                return False
            file.readers += 1
            return True

    def read_into(self, receipt: int, view: memoryview, offset: int) -> int:
        """Read after `open`. Return the number of bytes. It is less than asked for only at the end."""
        descriptor, got = self._files[receipt].descriptor, 0
        while got < len(view):
            more = os.preadv(descriptor, [view[got:]], offset + got)
            if not more:
                break
            got += more
        return got

    def close(self, receipt: int) -> None:
        """End a read that `open` began."""
        with self._lock:
            file = self._files[receipt]
            file.readers -= 1
            file.until = time.monotonic() + _SECONDS
        self.tidy()

    def tidy(self) -> None:
        """Close files that were kept long enough, are too many, or take scarce room."""
        if not self._files:
            return
        share = free_room(self._spool) // _SHARE
        with self._lock:
            now = time.monotonic()
            kept = sum(file.size for file in self._files.values())
            for number, file in enumerate(self._files.values()):
                is_old = now > file.until or len(self._files) - number > MOST_FILES
                if is_old or kept > share:
                    file.is_dropped = True
                    kept -= file.size
        self._close_dropped()

    def drop(self) -> None:
        """Close all files. A file that is being read is closed when its last reader ends."""
        with self._lock:
            for file in self._files.values():
                file.is_dropped = True
        self._close_dropped()

    def _close_dropped(self) -> None:
        with self._lock:
            dropped = [(receipt, file) for receipt, file in self._files.items() if file.is_dropped and not file.readers]
            for receipt, _ in dropped:
                del self._files[receipt]
        for _, file in dropped:
            os.close(file.descriptor)
