"""WrittenRanges: the byte ranges of an upload that its writer has written.

A file may be made longer before its bytes come. Clients of Samba set its end first. Downloaders allocate it. Others
write its last part first. Such a file reads as zeros where nothing came, and a plain tar takes these for content. So
unwritten bytes must be told apart from written zeros.

While an upload has gaps, its ranges are on disk as well (`mount.incoming.range_file`). That file is made before the
first gap, added to after each write, and cut before the upload is cut. So if a process is killed, the record can only
miss bytes. An upload without such a file has no gaps.

Knows no FUSE. Threading: any thread. `_lock` guards everything, and is held while the ranges are written to disk.
"""

from __future__ import annotations

import enum
import threading
from array import array
from bisect import bisect_left, bisect_right

from bentofs.mount.incoming.range_file import RangeFile
from bentofs.store.errors import TooBigError

MOST_RANGES = 65_536  # of one upload, 16 bytes each: pieces of 1 MiB make 128 GiB in the worst order
_PAIRS_OVER = 4096  # surplus pairs on disk, above the number of ranges; beyond this the file is rewritten


class Skips(enum.Enum):
    """The gaps that count as zeros in a file written front to back. The choice depends on what else is known of the
    writer."""

    ALL = 0  # it will rename the file once the file is whole
    BEHIND_BYTES = 1  # a file that only got a length may have been interrupted
    AS_RSYNC = 2  # in place, rsync's writes never begin or end with zeros, and it says where the last zeros are


class WrittenRanges:
    """The ranges of one upload, sorted. No two of them touch."""

    def __init__(self, path: str, size: int, *, is_new: bool = False) -> None:
        """`path`: of the file of ranges; `size`: bytes of the upload; `is_new`: True if the upload was just created."""
        self._lock = threading.Lock()
        self._file = RangeFile(path)
        self._starts = array("q")
        self._ends = array("q")
        self._size = size
        self._is_gone = False  # the upload has lost its name, and its ranges have no file
        if is_new:
            self._file.remove()  # of an earlier upload with this inode
        known = None if is_new else self._file.load()
        self._is_skipping = known is None  # so far each write began at or behind the end
        for start, end in ((0, size),) if known is None else known:
            self._add(start, min(end, size))
        self._has_outer_zeros = False  # a write began or ended with zeros, so the writer does not leave out zeros
        # The end of the zeros at the start of the upload. None once other bytes came.
        self._zeros: int | None = size if not self._starts else None

    def is_allocation(self, offset: int, view: memoryview) -> bool:
        """Return True if a write only makes room. No archive begins with zeros. So zeros from the first byte on come
        from a program that will write the bytes later."""
        with self._lock:
            return offset == self._zeros and view[0] == 0 and not view.tobytes().lstrip(b"\0")

    def before_write(self, offset: int, *, allocates: bool) -> None:
        """Start the file of ranges if this write leaves a gap: it is behind the end, or it only makes room.

        Raises:
            OSError: the file of ranges cannot be written.
        """
        with self._lock:
            if offset > self._end or allocates:
                self._start_file()

    def after_write(self, offset: int, view: memoryview, *, allocates: bool) -> None:
        """Add the written range.

        Raises:
            OSError: the file of ranges cannot be written; these bytes count as unwritten.
            TooBigError: there would be too many ranges; these bytes count as unwritten.
        """
        end = offset + len(view)
        with self._lock:
            self._is_skipping = self._is_skipping and offset >= self._size and not allocates
            self._has_outer_zeros = self._has_outer_zeros or not (view[0] and view[-1])
            self._size = max(self._size, end)
            self._zeros = end if allocates else None
            if allocates:
                return
            self._record(offset, end)

    def skip(self, start: int, end: int) -> None:
        """Count a range behind the end as written: the program says that it is zeros.

        Raises:
            OSError, TooBigError: see `after_write`.
        """
        with self._lock:
            self._zeros = None
            self._record(start, end)

    def before_resize(self, length: int) -> None:
        """Prepare for a new length of the upload.

        Raises:
            OSError: the file of ranges cannot be written.
        """
        with self._lock:
            if length > self._end:
                self._start_file()
            elif length < self._size:
                self._cut(length)
                if self._file.is_started:
                    self._file.rewrite(zip(self._starts, self._ends, strict=True))
            if not length:
                self._zeros, self._is_skipping, self._has_outer_zeros = 0, True, False
            self._size = length

    def accept_skipped(self, which: Skips) -> None:
        """Count the gaps that the writer left on purpose as written, such as the zeros that `rsync --sparse` leaves
        out. The writer must have written front to back. If it set the length, it must have set it behind its last byte.
        """
        with self._lock:
            if self._is_skipping and (
                which is Skips.ALL
                or (which is Skips.BEHIND_BYTES and self._starts)
                or (self._starts and self._ends[-1] >= self._size and not self._has_outer_zeros)
            ):
                self._cut(0)
                self._add(0, self._size)
                self._file.remove()

    def gap(self) -> tuple[int, int] | None:
        """Return the first unwritten byte and the number of unwritten bytes. Return None if there are none."""
        with self._lock:
            missing = self._size - sum(
                min(end, self._size) - min(start, self._size)
                for start, end in zip(self._starts, self._ends, strict=True)
            )
            if not missing:
                self._file.remove()
                return None
            return (self._ends[0] if self._starts and not self._starts[0] else 0), missing

    def sync(self) -> None:
        """Sync the ranges to disk."""
        with self._lock:
            self._file.sync()

    def forget(self) -> None:
        """Remove the file of ranges, because the upload has lost its name."""
        with self._lock:
            self._is_gone = True
            self._file.remove()

    def close(self) -> None:
        """Close the file of ranges. It stays on disk."""
        with self._lock:
            self._file.close()

    @property
    def _end(self) -> int:
        """Return the end of the upload, including zeros that the program left out and that will lie before its next
        bytes."""
        return max(self._size, self._ends[-1]) if self._ends else self._size

    def _record(self, start: int, end: int) -> None:
        if len(self._starts) >= MOST_RANGES and not self._touches(start, end):
            raise TooBigError(
                f"it came in more than {MOST_RANGES:,} pieces with gaps between them: send larger pieces, or send them "
                "in order"
            )
        if self._file.is_started:
            if self._file.pairs > len(self._starts) + _PAIRS_OVER:
                self._file.rewrite(zip(self._starts, self._ends, strict=True))
            self._file.append(start, end)
        self._add(start, end)

    def _start_file(self) -> None:
        if not self._file.is_started and not self._is_gone:
            self._file.start(zip(self._starts, self._ends, strict=True))

    def _touches(self, start: int, end: int) -> bool:
        """Return True if a range overlaps a known range, or lies right beside one."""
        return bisect_left(self._ends, start) < bisect_right(self._starts, end)

    def _add(self, start: int, end: int) -> None:
        if start >= end:
            return
        first, behind = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < behind:
            start, end = min(start, self._starts[first]), max(end, self._ends[behind - 1])
            if behind - first == 1:
                self._starts[first], self._ends[first] = start, end
                return
        self._starts[first:behind] = array("q", (start,))
        self._ends[first:behind] = array("q", (end,))

    def _cut(self, length: int) -> None:
        kept = bisect_left(self._starts, length)
        del self._starts[kept:], self._ends[kept:]
        if kept:
            self._ends[-1] = min(self._ends[-1], length)
