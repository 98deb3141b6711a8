"""PinnedFile: a file's bytes at one identity, opened when first read; few stay open at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from bentofs.store.storage.base import Identity, OpenFile, Storage
from bentofs.store.util.keyed_lock import KeyedLock


class OpenFiles:
    """Bounds how many pinned files of a process are open, and for how long: a deleted model gives its room back.

    The one opened first is let go first: streaming comes by each file once, and keeping the order of use would cost a
    lock at every read. Who still reads it opens it again.
    """

    def __init__(self, limit: int = 256, seconds: float = 5.0) -> None:
        """At most `limit` files, each for at most about twice `seconds`."""
        self._limit = limit
        self._seconds = seconds
        self.turns = KeyedLock()  # at opening a file
        self._lock = threading.Lock()
        self._opened: deque[tuple[float, PinnedFile]] = deque()
        self._timer: threading.Timer | None = None

    def opened(self, file: PinnedFile) -> None:
        """Take note of a file just opened."""
        with self._lock:
            self._opened.append((time.monotonic(), file))
            first = self._opened.popleft() if len(self._opened) > self._limit else None
            if self._timer is None:
                self._start_timer()
        if first is not None:
            first[1].let_go()

    def let_go(self) -> None:
        """Close all files that nobody reads: no more will be read soon."""
        with self._lock:
            opened, self._opened = self._opened, deque()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for _, file in opened:
            file.let_go()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(self._seconds, self._let_go_old)
        self._timer.daemon = True
        self._timer.start()

    def _let_go_old(self) -> None:
        old = []
        with self._lock:
            until = time.monotonic() - self._seconds
            while self._opened and self._opened[0][0] <= until:
                old.append(self._opened.popleft()[1])
            self._timer = None
            if self._opened:
                self._start_timer()
        for file in old:
            file.let_go()


class PinnedFile:
    """A piece: the bytes that a file had when the archive was laid out, or SourceChangedError.

    A reader that is in the middle of a read keeps the file open for itself, whoever lets go.
    """

    __slots__ = ("_file", "_open_files", "_storage", "identity", "length", "source")

    def __init__(self, storage: Storage, open_files: OpenFiles, source: str, identity: Identity) -> None:
        self._storage = storage
        self._open_files = open_files
        self.source = source
        self._file: OpenFile | None = None
        self.identity = identity
        self.length = identity.size

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """As `Piece.read_into`."""
        (self._file or self.open()).read_into(views, offset)

    def open(self) -> OpenFile:
        """The open file; kept open while others do not need the place.

        Raises:
            SourceChangedError: it is no longer what was pinned.
            StoreUnreadableError: it may not be read.
        """
        with self._open_files.turns.at(self):  # readers that come together, once: an open may take long
            file = self._file
            if file is None:
                file = self._file = self._storage.open_file(self.source, self.identity)
                self._open_files.opened(self)
            return file

    def let_go(self) -> None:
        """Close the file once nobody reads it."""
        self._file = None
