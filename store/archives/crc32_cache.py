"""Measurements: the CRC-32s of files, computed once from their bytes and kept in the index.

The key is the file's identity (`store.storage.base.Identity`), so a changed file is measured anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from bentofs.store.archives.index import Index
from bentofs.store.errors import SourceChangedError, StoreUnreadableError
from bentofs.store.formats.crc32 import RunningChecksum, crc32, crc32_of
from bentofs.store.formats.pieces import Views, read_bytes
from bentofs.store.storage.base import Identity
from bentofs.store.storage.pinned import PinnedFile
from bentofs.store.storage.timestamps import is_settled
from bentofs.store.util.budgeted_cache import BudgetedCache
from bentofs.store.util.keyed_lock import KeyedLock
from bentofs.store.util.memory_budget import MemoryBudget

_KEPT = 1 << 20  # bytes, over all files whose CRC-32 is kept in memory; the index answers 500 in one query
_FILE = 480  # bytes that one takes


class Measurements:
    """The measurements of one process, shared by all archives. Threads that want the same file wait for one
    computation."""

    def __init__(
        self, index: Index, learnt: Callable[[], None] = lambda: None, budget: MemoryBudget | None = None
    ) -> None:
        """`learnt`: called each time a file was measured; `budget`: None for a new one."""
        self._index = index
        self._learnt = learnt
        self._known: BudgetedCache[Identity, int] = BudgetedCache(budget or MemoryBudget(), _KEPT, least=_KEPT // 2)
        self._turns = KeyedLock()

    def crc32(self, file: PinnedFile) -> int:
        """Return the CRC-32 of a file's content. Read the whole file unless it is known.

        Raises:
            SourceChangedError, StoreUnreadableError: while reading the file.
        """
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
        """Return the CRC-32 of a file; None if it has not been measured."""
        known = self._known.get(identity)
        if known is None:
            known = self._index.checksum(identity)
            if known is not None:
                self._known.put(identity, known, _FILE)
        return known

    def known(self, identities: Sequence[Identity]) -> dict[Identity, int]:
        """Return the known CRC-32s of these files; faster than one by one."""
        found = self._known.get_all(identities)
        asked = self._index.checksums([identity for identity in identities if identity not in found])
        return found | asked

    def keep_crc32(self, identity: Identity, crc: int, started_ns: int) -> bool:
        """Keep the CRC-32 of bytes read since `started_ns` (wall clock). Skip a file that was so young then that a
        later change might not show in its identity. Return True if it is kept."""
        if not is_settled(identity.ctime_ns, started_ns):
            return False
        self._known.put(identity, crc, _FILE)
        self._index.keep_checksum(identity, crc)
        self._learnt()
        return True

    def keep_all(self, crcs: Mapping[Identity, int], started_ns: int) -> dict[Identity, int]:
        """Do what `keep_crc32` does, but for many files at once. Return those that are kept."""
        kept = {identity: crc for identity, crc in crcs.items() if is_settled(identity.ctime_ns, started_ns)}
        if kept:
            self._known.put_all(kept.items(), _FILE)
            self._index.keep_checksums(kept)
            self._learnt()
        return kept


class _Learning:
    """A CRC-32 that is computed from the bytes as they are served."""

    __slots__ = ("lock", "running", "started_ns")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = RunningChecksum()
        self.started_ns = 0  # when the first read began

    def start(self) -> None:
        """Note that a read begins."""
        if not self.started_ns:
            with self.lock:
                self.started_ns = self.started_ns or time.time_ns()


class MeasuredFile:
    """A piece that knows its CRC-32: from the measurements, or else from the bytes that it serves, so that they need
    not be read twice."""

    __slots__ = ("__weakref__", "_crc32", "_file", "_learning", "_learnt", "_measurements", "identity", "length")

    def __init__(
        self,
        measurements: Measurements,
        file: PinnedFile,
        *,
        crc32: int | None = None,
        learns: bool = True,
        learnt: Callable[[int], None] = lambda _crc32: None,
    ) -> None:
        """`crc32`: None if it is unknown; `learns`: compute an unknown CRC-32 from the bytes that are served; `learnt`:
        called with the CRC-32 when it becomes known and can be relied on."""
        self._measurements = measurements
        self._file = file
        self._crc32 = crc32
        self._learnt = learnt
        self._learning = _Learning() if learns and crc32 is None else None  # None once the CRC-32 is known or given up
        self.identity = file.identity
        self.length = file.length

    @property
    def source(self) -> str:
        """The place of the bytes, to show to a user."""
        return self._file.source

    def read_sample(self, offset: int, size: int) -> bytes:
        """Read a sample, out of order. The CRC-32 is not computed from it."""
        return read_bytes(self._file, offset, size)

    def read_into(self, views: Views, offset: int) -> None:
        """Do what `Piece.read_into` does."""
        learning = self._learning
        if learning is None:
            self._file.read_into(views, offset)
            return
        if len(views) == 1 and len(views[0]) == self.length and not learning.started_ns:
            self._read_whole(learning, views)
            return
        learning.start()
        self._file.read_into(views, offset)
        self._learn(learning, views, offset)

    def _read_whole(self, learning: _Learning, views: Views) -> None:
        """Read all bytes at once: the usual case of a small file."""
        started_ns = time.time_ns()
        self._file.read_into(views, 0)
        with learning.lock:
            is_mine = self._learning is learning
            if is_mine:
                self._learning = None
        if is_mine:
            self._keep(crc32(views[0]), started_ns)

    def learn_ahead(self, count: int) -> bool:
        """Read up to `count` more bytes that `crc32` will need; False if that is no longer useful. Ignore errors:
        `crc32` will meet them again."""
        learning = self._learning
        if learning is None:
            return False
        learning.start()
        try:
            return learning.running.read_on(self._file, self.length, count)
        except (SourceChangedError, StoreUnreadableError):
            return False

    def crc32(self) -> int:
        """Return the CRC-32 of the whole file. Read the bytes that have not been served.

        Raises:
            SourceChangedError, StoreUnreadableError: while reading the file.
        """
        if self._crc32 is not None:
            return self._crc32
        learning = self._learning
        if learning is not None:
            with learning.lock:
                is_mine, self._learning = self._learning is learning, None
            if is_mine and learning.running.begun:
                crc = learning.running.complete(self._file, 0, self.length)
                self._keep(crc, learning.started_ns)
                return crc
        started_ns = time.time_ns()
        crc = self._measurements.crc32(self._file)
        if is_settled(self.identity.ctime_ns, started_ns):
            self._learnt(crc)
        return crc

    def _learn(self, learning: _Learning, views: Views, offset: int) -> None:
        running = learning.running
        taken = running.extend(offset, views)
        if taken and not running.is_waiting and running.value(self.length) is None:
            return  # the usual case of a large file
        with learning.lock:
            if self._learning is not learning:
                return
            if taken:
                running.join()
            else:
                running.add(offset, views)
            whole = running.value(self.length)
            if whole is None:
                return
            self._learning = None
        self._keep(whole, learning.started_ns)

    def _keep(self, crc: int, started_ns: int) -> None:
        if self._measurements.keep_crc32(self._file.identity, crc, started_ns):
            self._learnt(crc)
