"""UploadFile: the spooled file of an upload: its descriptor, the ranges that were written, and the bytes that failed.

Knows no FUSE. Threading: any thread. No lock is held while bytes are written.
"""

from __future__ import annotations

import errno
import os

from bentofs.mount.incoming.control_files import is_control_file
from bentofs.mount.incoming.written_ranges import Skips, WrittenRanges
from bentofs.store.errors import NoSpaceError, StoreError, UnwrittenBytesError
from bentofs.store.util.display import printable
from bentofs.store.util.threads import run_beside

_LARGE = 256 << 20  # bytes


class UploadFile:
    """The bytes of one upload on disk."""

    def __init__(self, descriptor: int, written: WrittenRanges) -> None:
        """`descriptor` and `written` are closed by this object."""
        self._descriptor = descriptor
        self._written = written
        self._failure: StoreError | OSError | None = None  # why bytes are missing
        self._failed_at = 0  # offset of the missing bytes

    @property
    def failure(self) -> StoreError | OSError | None:
        """Why bytes could not be written, while they are still missing."""
        return self._failure

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def status(self) -> os.stat_result:
        """Return the stat result."""
        return os.fstat(self._descriptor)

    @property
    def size(self) -> int:
        """Return the length in bytes."""
        return os.fstat(self._descriptor).st_size

    def refuse_behind_failure(self, offset: int) -> None:
        """Raise the error of a failed write if an offset lies behind it. A program that goes on anyway would leave a
        hole of zeros."""
        if self._failure is not None and offset > self._failed_at:
            raise self._failure

    def is_allocation(self, offset: int, view: memoryview) -> bool:
        """Do what `WrittenRanges.is_allocation` does."""
        return self._written.is_allocation(offset, view)

    def write(self, path: str, view: memoryview, offset: int, *, allocates: bool) -> None:
        """Write all of the view. `path`: for errors. `allocates`: these zeros only make room.

        Raises:
            NoSpaceError: there is no room.
            OSError: it cannot be written.
        """
        try:
            self._written.before_write(offset, allocates=allocates)
            done = os.pwrite(self._descriptor, view, offset)
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], offset + done)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"{printable(path)}: there is no room left for the upload") from None
            raise
        if self._failure is not None and offset + done > self._failed_at:
            self._failure = None

    def note_written(self, offset: int, view: memoryview, *, allocates: bool) -> None:
        """Do what `WrittenRanges.after_write` does."""
        self._written.after_write(offset, view, allocates=allocates)

    def fail(self, error: StoreError | OSError, offset: int) -> None:
        """Record that bytes could not be written at an offset. Until they come, nothing is written behind it."""
        self._failed_at = offset if self._failure is None else min(offset, self._failed_at)
        self._failure = error

    def resize(self, length: int) -> bool:
        """Set the length. Return False if it was this length before."""
        if length <= self._failed_at:
            self._failure = None
        if length == self.size:
            return False
        self._written.before_resize(length)
        os.ftruncate(self._descriptor, length)
        return True

    def skip(self, offset: int, length: int) -> None:
        """Note zeros behind the end that the program will not write.

        Raises:
            OSError: the range is not behind the end.
        """
        if offset < self.size:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._written.skip(offset, offset + length)

    def accept_skipped(self, which: Skips) -> None:
        """Do what `WrittenRanges.accept_skipped` does."""
        self._written.accept_skipped(which)

    def has_gap(self) -> bool:
        """Return True if bytes never came."""
        return self._written.gap() is not None

    def unwritten(self) -> UnwrittenBytesError | None:
        """Return the error that names the bytes that never came, or None if all came."""
        gap = self._written.gap()
        if gap is None:
            return None
        first, count = gap
        return UnwrittenBytesError(
            f"{count:,} of its {self.size:,} bytes never came, from byte {first:,} on: finish the upload, or copy it "
            "again, zeros included (cp --sparse=never)"
        )

    def may_be_zip(self) -> bool:
        """Return True if it begins like a zip."""
        return os.pread(self._descriptor, 2, 0) == b"PK"

    def is_control_file(self, path_on_disk: str) -> bool:
        """Return True if this is a downloader's control file."""
        return is_control_file(path_on_disk, self._descriptor)

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read back written bytes. Return their number. It is less than asked for only at the end."""
        got = 0
        while got < len(view):
            more = os.preadv(self._descriptor, [view[got:]], offset + got)
            if not more:
                break
            got += more
        return got

    def duplicate(self) -> int:
        """Return another descriptor of the file."""
        return os.dup(self._descriptor)

    def sync(self) -> None:
        """Sync the bytes and the ranges to disk."""
        os.fsync(self._descriptor)
        self._written.sync()

    def lose_name(self) -> None:
        """Remove the file of ranges: the upload cannot be resumed any more."""
        self._written.forget()

    def close(self) -> None:
        """Close the descriptor and the file of ranges. The last close of a large file takes long: a thread does it."""
        if self.size >= _LARGE:
            run_beside(self._close, "close")
        else:
            self._close()

    def _close(self) -> None:
        os.close(self._descriptor)
        self._written.close()
