"""PinnedFile: a file's bytes at one identity, opened when first read; few stay open at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from store.storage.base import Identity, OpenFile, Storage


class OpenFiles:
    """Bounds how many pinned files of a process are open. The one opened first is let go first: streaming comes by each
    file once, and keeping the order of use would cost a lock at every read."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._opened: deque[PinnedFile] = deque()

    def opened(self, file: PinnedFile) -> None:
        """Take note of a file just opened."""
        with self._lock:
            self._opened.append(file)
            first = self._opened.popleft() if len(self._opened) > self._limit else None
        if first is not None:
            first.let_go()


class PinnedFile:
    """A piece: the bytes that a file had when the archive was laid out, or SourceChangedError.

    A reader that is in the middle of a read keeps the file open for itself, whoever lets go.
    """

    __slots__ = ("_file", "_open_files", "_source", "_storage", "identity", "length")

    def __init__(self, storage: Storage, open_files: OpenFiles, source: str, identity: Identity) -> None:
        self._storage = storage
        self._open_files = open_files
        self._source = source
        self._file: OpenFile | None = None
        self.identity = identity
        self.length = identity.size

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """As `Piece.read_into`."""
        (self._file or self.open()).read_into(views, offset)

    def open(self) -> OpenFile:
        """Open the file, and keep it open while others do not need the place.

        Raises:
            SourceChangedError: it is no longer what was pinned.
            StoreUnreadableError: it may not be read.
        """
        file = self._file = self._storage.open_file(self._source, self.identity)
        self._open_files.opened(self)
        return file

    def let_go(self) -> None:
        """Close the file once nobody reads it."""
        self._file = None
