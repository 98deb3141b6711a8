"""The SHA-256 of whole archives and files."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Callable

from bentofs.store.formats.pieces import Piece, Views
from bentofs.store.util.aligned_buffer import page_buffer

_READ = 1 << 20  # bytes at a time


def sha256_of(piece: Piece, progress: Callable[[int], object] = lambda _count: None) -> str:
    """Return the SHA-256 of a whole piece, hexadecimal. `progress` is called with the number of bytes of each read."""
    digest = hashlib.sha256()
    buffer = page_buffer(min(_READ, piece.length))
    offset = 0
    while offset < piece.length:
        part = buffer[: min(len(buffer), piece.length - offset)]
        piece.read_into([part], offset)
        digest.update(part)
        offset += len(part)
        progress(len(part))
    return digest.hexdigest()


class Hashed:
    """A piece that hashes its bytes while somebody reads them, so that they need not be read again for a SHA-256.

    Bytes that come before their turn are kept, up to a limit. What was not kept is read again at the end.
    Threading: any thread may read.
    """

    def __init__(self, piece: Piece, ahead: int) -> None:
        """`ahead`: bytes at most that are kept before their turn."""
        self._piece = piece
        self._room = ahead
        self._lock = threading.Lock()  # guards the fields below
        self._digest = hashlib.sha256()
        self._done = 0  # bytes from the start that are hashed
        self._starts: list[int] = []  # of the bytes that are kept, sorted
        self._kept: dict[int, bytes] = {}  # by start
        self.length = piece.length

    def read_into(self, views: Views, offset: int) -> None:
        """Do what `Piece.read_into` does."""
        self._piece.read_into(views, offset)
        with self._lock:
            for view in views:
                self._add(offset, view)
                offset += len(view)

    def sha256(self) -> str:
        """Return the SHA-256 of the whole piece, hexadecimal. Read what was not kept.

        Raises:
            SourceChangedError, StoreUnreadableError: while reading.
        """
        with self._lock:
            buffer = page_buffer(min(_READ, self.length))
            while self._done < self.length:
                gap = (self._starts[0] if self._starts else self.length) - self._done
                part = buffer[:gap]
                self._piece.read_into([part], self._done)
                self._add(self._done, part)
            return self._digest.hexdigest()

    def _add(self, start: int, view: memoryview) -> None:
        """Hash bytes if it is their turn; else keep them if there is room."""
        if start > self._done:
            self._keep(start, view)
            return
        self._extend(start, view)
        while self._starts and self._starts[0] <= self._done:
            kept = self._kept.pop(first := self._starts.pop(0))
            self._room += len(kept)
            self._extend(first, memoryview(kept))

    def _extend(self, start: int, view: memoryview) -> None:
        self._digest.update(view[self._done - start :])
        self._done = max(self._done, start + len(view))

    def _keep(self, start: int, view: memoryview) -> None:
        at = bisect_right(self._starts, start) - 1
        if at >= 0 and self._starts[at] + len(self._kept[self._starts[at]]) >= start + len(view):
            return  # read twice: for a signature, or to be sent again
        if start not in self._kept and len(view) <= self._room:
            self._room -= len(view)
            self._starts.insert(at + 1, start)
            self._kept[start] = bytes(view)
