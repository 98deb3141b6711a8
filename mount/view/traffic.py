"""Traffic: how much is read from a mount, by the kind of file.

Each open file has its own counts, which are added up when it is closed. So a read costs two additions and no lock. A
thread cannot lose another's addition while Python runs one thread at a time.

Bytes that the kernel has in its cache, or reads itself (passthrough), do not come to the daemon and are not counted.
"""

from __future__ import annotations

import threading
from typing import NamedTuple


class Count:
    """The reads of one open file."""

    __slots__ = ("bytes", "kind", "reads")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.reads = 0
        self.bytes = 0


class Total(NamedTuple):
    """The reads of all files of one kind."""

    opens: int = 0
    reads: int = 0
    bytes: int = 0

    def plus(self, count: Count) -> Total:
        """Return the total with the counts of one more open file."""
        return Total(self.opens + 1, self.reads + count.reads, self.bytes + count.bytes)


class Traffic:
    """The reads of one mount. Threading: any thread."""

    def __init__(self) -> None:
        self.by_handle: dict[int, Count] = {}  # of the open files
        self._lock = threading.Lock()
        self._closed: dict[str, Total] = {}  # of the closed files, by their kind

    def opened(self, handle: int, kind: str) -> None:
        """Begin to count for an open file."""
        with self._lock:
            self.by_handle[handle] = Count(kind)

    def closed(self, handle: int) -> None:
        """Add up the counts of a file that is closed."""
        with self._lock:
            count = self.by_handle.pop(handle, None)
            if count is not None:
                self._closed[count.kind] = self._closed.get(count.kind, Total()).plus(count)

    def totals(self) -> dict[str, Total]:
        """Return the reads since the mount began, by the kind of file."""
        with self._lock:
            totals = dict(self._closed)
            for count in self.by_handle.values():
                totals[count.kind] = totals.get(count.kind, Total()).plus(count)
        return dict(sorted(totals.items()))
