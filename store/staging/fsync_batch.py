"""Sync many new files to disk, mostly while further files are still being written.

A few threads fsync large files, and the first small ones, as soon as each is complete. Thousands of small files are
synced at once at the end by syncfs(2). This is done only on file systems that are known to make all data durable by
syncfs, and to report write errors through it (Linux 5.8).

Threading: one thread uses a `Syncer`.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from bentofs.store.util.threads import handed_over

_THREADS = 4
_WAITING = 32  # complete files that wait for their fsync, each with an open descriptor
_FSYNCED = 200  # small files that get an fsync each; the others are synced at the end
_SMALL = 1 << 20  # bytes
_WRITTEN_BACK = 16 << 20  # bytes of one file after which the kernel is asked to begin writing them to the disk
_KNOWN = {0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs", 0xF2F52010: "f2fs", 0x01021994: "tmpfs"}
_WRITE = 2  # SYNC_FILE_RANGE_WRITE
_libc = ctypes.CDLL(None, use_errno=True)


class Syncer:
    """Sync the files below one directory."""

    def __init__(self, folder: int) -> None:
        """`folder`: the directory's descriptor, opened before the first file is written, so that syncfs reports write
        errors."""
        self._folder = folder
        self._pool = ThreadPoolExecutor(_THREADS, "sync")
        self._room = threading.BoundedSemaphore(_WAITING)
        self._error: OSError | None = None
        self._small = 0
        self._left = False  # True if some files are left to syncfs
        self._has_syncfs = _file_system(folder) in _KNOWN and hasattr(_libc, "syncfs")

    def file(self, descriptor: int, size: int) -> None:
        """Sync a complete file of `size` bytes, soon, and close its descriptor.

        Raises:
            OSError: an earlier file could not be synced.
        """
        self._small += size < _SMALL
        if size < _SMALL and self._small > _FSYNCED and self._has_syncfs:
            self._left = True
            os.close(descriptor)
        else:
            self._room.acquire()
            if not handed_over(self._pool, functools.partial(self._sync, descriptor)):
                self._sync(descriptor)
        self.check()

    def written(self, descriptor: int, before: int, size: int) -> None:
        """Begin to write back an incomplete file that has grown from `before` to `size` bytes."""
        start = before // _WRITTEN_BACK * _WRITTEN_BACK
        length = size // _WRITTEN_BACK * _WRITTEN_BACK - start
        if length:  # only advice: the later fsync reports any error
            _libc.sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(length), _WRITE)

    def check(self) -> None:
        """Raise the OSError of a file that could not be synced."""
        if self._error is not None:
            raise self._error

    def finish(self) -> None:
        """Wait until all is on the disk: the files, the directories, and the top directory itself.

        Raises:
            OSError: something could not be synced.
        """
        self._pool.shutdown()
        self.check()
        if not self._left:
            _sync_folders(self._folder)
        elif _libc.syncfs(self._folder):
            number = ctypes.get_errno() or errno.EIO
            raise OSError(number, os.strerror(number))

    def abandon(self) -> None:
        """Wait for running fsyncs, and close all descriptors."""
        self._pool.shutdown()

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:  # raised again in the thread that writes
            self._error = error
        finally:
            os.close(descriptor)
            self._room.release()


def _sync_folders(folder: int) -> None:
    """Sync a directory and all directories below it."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in names:
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _sync_folders(below)
        finally:
            os.close(below)
    os.fsync(folder)


def _file_system(descriptor: int) -> int:
    """Return the magic number of a descriptor's file system: the first field of struct statfs; 0 if it is unknown."""
    fields = (ctypes.c_long * 32)()
    return fields[0] & 0xFFFFFFFF if _libc.fstatfs(descriptor, ctypes.byref(fields)) == 0 else 0
