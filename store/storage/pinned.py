"""PinnedFile: a file's bytes at one identity. It is opened at the first read; few files stay open at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from bentofs.store.storage.base import Identity, OpenFile
from bentofs.store.util.keyed_lock import KeyedLock
from bentofs.store.util.threads import started

WHOLE = 64 << 10  # bytes at most of a file that is closed at once if one read takes all of it


class Opener(Protocol):
    """Opens files, such as a `store.storage.base.Storage`."""

    @property
    def has_page_cache(self) -> bool: ...
    def open_file(self, source: str, identity: Identity) -> OpenFile: ...


class OpenFiles:
    """Limits how many pinned files of a process are open, and for how long, so that a deleted model frees its space.

    The file that was opened first is closed first. Streaming reads each file once, and keeping the order of use would
    cost a lock at every read. A reader that still needs the file opens it again.
    """

    def __init__(self, limit: int = 256, seconds: float = 5.0) -> None:
        """Keep at most `limit` files open, each for at most about twice `seconds`."""
        self._limit = limit
        self._seconds = seconds
        self.turns = KeyedLock()  # one thread at a time opens a file
        self._lock = threading.Lock()
        self._opened: deque[tuple[float, PinnedFile]] = deque()
        self._passed: OpenFile | None = None  # the last one
        self._timer: threading.Timer | None = None

    def opened(self, file: PinnedFile) -> None:
        """Record a file that was just opened."""
        with self._lock:
            self._opened.append((time.monotonic(), file))
            first = self._opened.popleft() if len(self._opened) > self._limit else None
            if self._timer is None:
                self._start_timer()
        if first is not None:
            first[1].let_go()

    def passed(self, file: OpenFile) -> None:
        """Record a file that is not needed any more. It stays open until the next one passes, and with it its
        directory, which often holds the next one, too (`store.storage.local`)."""
        self._passed = file
        if self._timer is None:
            with self._lock:
                if self._timer is None:
                    self._start_timer()

    def let_go(self) -> None:
        """Close all files that nobody reads, when no reads are expected soon."""
        with self._lock:
            self._passed = None
            opened, self._opened = self._opened, deque()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for _, file in opened:
            file.let_go()

    def _start_timer(self) -> None:
        timer = threading.Timer(self._seconds, self._let_go_old)
        timer.daemon = True
        self._timer = timer if started(timer) else None  # else the next file tries again

    def _let_go_old(self) -> None:
        old = []
        with self._lock:
            until = time.monotonic() - self._seconds
            while self._opened and self._opened[0][0] <= until:
                old.append(self._opened.popleft()[1])
            self._timer = self._passed = None
            if self._opened:
                self._start_timer()
        for file in old:
            file.let_go()


class PinnedFile:
    """A piece: the bytes that a file had when the archive was laid out, or SourceChangedError.

    A read in progress keeps the file open, even if `let_go` is called meanwhile.
    """

    __slots__ = ("_file", "_open_files", "_storage", "identity", "length", "source")

    def __init__(self, storage: Opener, open_files: OpenFiles, source: str, identity: Identity) -> None:
        self._storage = storage
        self._open_files = open_files
        self.source = source
        self._file: OpenFile | None = None
        self.identity = identity
        self.length = identity.size

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """Do what `Piece.read_into` does."""
        file = self._file
        if file is None and self.length <= WHOLE and self._storage.has_page_cache and _size(views) == self.length:
            # Read as a whole, it is not needed any more. Keeping it open takes longer than the read.
            file = self._storage.open_file(self.source, self.identity)
            file.read_into(views, 0)
            self._open_files.passed(file)
        else:
            (file or self.open()).read_into(views, offset)

    def open(self) -> OpenFile:
        """Open the file, or return it if it is open. It stays open until other files need the slot, or time is up.

        Raises:
            SourceChangedError: its identity is no longer the pinned one.
            StoreUnreadableError: it may not be read.
        """
        with self._open_files.turns.at(self):  # several readers open it once: an open may take long
            file = self._file
            if file is None:
                file = self._file = self._storage.open_file(self.source, self.identity)
                self._open_files.opened(self)
            return file

    def let_go(self) -> None:
        """Close the file once nobody reads it."""
        self._file = None


def _size(views: Sequence[memoryview]) -> int:
    return sum(map(len, views))
