"""Measurements: what must be learnt from a file's bytes once, and is kept in the index: its CRC-32.

Keyed by the file's identity (`store.storage.base.Identity`), so that a changed file is measured anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from cachetools import LRUCache

from store.archive.checksum import RunningChecksum, crc32_of
from store.archive.pieces import Views, read_bytes
from store.errors import SourceChangedError, StoreUnreadableError
from store.index import Index
from store.storage.base import Identity
from store.storage.pinned import PinnedFile
from store.storage.stamp import is_settled
from store.turns import Turns

_KEPT = 50_000  # files whose CRC-32 is kept in memory


class Measurements:
    """The measurements of one process, shared by all archives. Threads that want the same file wait for one measure."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()  # never held while reading
        self._known: LRUCache[Identity, int] = LRUCache(_KEPT)
        self._turns = Turns()

    def crc32(self, file: PinnedFile) -> int:
        """The CRC-32 of a file's content; reads the whole file unless it is known.

        Raises:
            SourceChangedError, StoreUnreadableError: as reading does.
        """
        with self._lock:
            known = self._known.get(file.identity)
        if known is not None:
            return known
        with self._turns.at(file.identity):
            known = self.known_crc32(file.identity)
            if known is None:
                started = time.time_ns()
                known = crc32_of(file, 0, file.length)
                self.keep_crc32(file.identity, known, started)
        return known

    def known_crc32(self, identity: Identity) -> int | None:
        """The CRC-32 of a file, if it has been measured."""
        with self._lock:
            known = self._known.get(identity)
        if known is None:
            known = self._index.checksum(identity)
            if known is not None:
                with self._lock:
                    self._known[identity] = known
        return known

    def known(self, identities: Sequence[Identity]) -> set[Identity]:
        """Which of these files have been measured; faster than one by one."""
        with self._lock:
            found = {identity for identity in identities if identity in self._known}
        asked = self._index.checksums([identity for identity in identities if identity not in found])
        with self._lock:
            self._known.update(asked)
        return found | asked.keys()

    def keep_crc32(self, identity: Identity, crc: int, started_ns: int) -> None:
        """Keep a CRC-32 of bytes read from `started_ns` (wall clock) on, unless the file was so young then that a
        change since might not show in its identity."""
        if is_settled(identity.ctime_ns, started_ns):
            with self._lock:
                self._known[identity] = crc
            self._index.keep_checksum(identity, crc)

    def trust_crc32(self, identity: Identity, crc: int) -> None:
        """Take a CRC-32 that the store keeps itself."""
        with self._lock:
            self._known[identity] = crc


class MeasuredFile:
    """A piece that knows its CRC-32: from the measurements or, while that is unknown, from its bytes as it serves them,
    so that they need not be read once more."""

    __slots__ = ("_file", "_learning", "_lock", "_measurements", "_running", "_started_ns", "identity", "length")

    def __init__(self, measurements: Measurements, file: PinnedFile, *, is_known: bool) -> None:
        """`is_known`: whether the measurements have it; learnt once more if that is not so any longer."""
        self._measurements = measurements
        self._file = file
        self._lock = threading.Lock()
        self._learning = not is_known
        self._running = RunningChecksum()
        self._started_ns = 0  # when the first read began
        self.identity = file.identity
        self.length = file.length

    @property
    def source(self) -> str:
        """Where the bytes are, to show to a user."""
        return self._file.source

    def read_sample(self, offset: int, size: int) -> bytes:
        """Some bytes, out of the order in which all will be read: nothing is learnt from them."""
        return read_bytes(self._file, offset, size)

    def read_into(self, views: Views, offset: int) -> None:
        """As `Piece.read_into`."""
        if self._learning and not self._started_ns:
            with self._lock:
                self._started_ns = self._started_ns or time.time_ns()
        self._file.read_into(views, offset)
        if self._learning:
            self._learn(views, offset)

    def learn_ahead(self, count: int) -> bool:
        """Read up to `count` more bytes of what `crc32` will need; False if that is of no use any more. What goes wrong
        will go wrong once more for whoever asks for that."""
        with self._lock:
            if not self._learning:
                return False
            self._started_ns = self._started_ns or time.time_ns()
            running = self._running
        try:
            return running.read_on(self._file, self.length, count)
        except (SourceChangedError, StoreUnreadableError):
            return False

    def crc32(self) -> int:
        """The CRC-32 of the whole; reads what has not been served.

        Raises:
            SourceChangedError, StoreUnreadableError: as reading does.
        """
        with self._lock:
            partly_known = self._learning and self._running.begun
            running, self._running = self._running, RunningChecksum()
            self._learning = False
        if not partly_known:
            return self._measurements.crc32(self._file)
        crc = running.complete(self._file, 0, self.length)
        self._measurements.keep_crc32(self._file.identity, crc, self._started_ns)
        return crc

    def _learn(self, views: Views, offset: int) -> None:
        taken = self._running.extend(offset, views)
        if taken and not self._running.is_waiting and self._running.value(self.length) is None:
            return  # the usual case of a large file
        with self._lock:
            if not self._learning:
                return
            if taken:
                self._running.join()
            else:
                self._running.add(offset, views)
            whole = self._running.value(self.length)
            if whole is None:
                return
            self._learning = False
        self._measurements.keep_crc32(self._file.identity, whole, self._started_ns)
