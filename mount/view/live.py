"""Live files: their bytes are made when they are opened, from the state of the daemon. `.bentofs/` holds them."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from bentofs.mount.view.nodes import Attributes, File, file_attributes
from bentofs.store.formats.pieces import Literal, Piece

_FRESH_SECONDS = 0.1  # for which a stat and the open after it get the same bytes


class _Snapshot(NamedTuple):
    content: bytes
    made: float  # monotonic
    time_ns: int


class LiveSource:
    """Makes the bytes of one live file. Threading: any thread; one makes them, and the others wait."""

    def __init__(self, make: Callable[[], bytes], mode: int = 0o644) -> None:
        """`mode`: the permissions of the file."""
        self.mode = mode
        self._make = make
        self._lock = threading.Lock()
        self._last: _Snapshot | None = None

    def snapshot(self) -> _Snapshot:
        """Return the bytes as they are now, or were a moment ago."""
        with self._lock:
            last = self._last
            if last is None or time.monotonic() - last.made > _FRESH_SECONDS:
                last = self._last = _Snapshot(self._make(), time.monotonic(), time.time_ns())
            return last


class LiveFile(File):
    """A file whose bytes change. The kernel must cache none of them. An open file keeps the bytes of its opening."""

    kind = "status"
    is_cacheable = False
    generation = None

    def __init__(self, path: str, source: LiveSource) -> None:
        self._path = path
        self._source = source

    @property
    def look(self) -> int:
        return time.monotonic_ns()

    def attributes(self) -> Attributes:
        snapshot = self._source.snapshot()
        attributes = file_attributes(self._path, len(snapshot.content), snapshot.time_ns, snapshot.time_ns)
        return attributes._replace(mode=stat.S_IFREG | self._source.mode)

    @property
    def is_private(self) -> bool:
        """True if only the mount's user may read it."""
        return not self._source.mode & stat.S_IROTH

    def renewed(self) -> File:
        return self

    def open(self) -> Piece:
        return Literal(self._source.snapshot().content)
