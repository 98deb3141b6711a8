"""The cache of chunks: just measured and waiting for their reader, read before, or made ahead.

Chunks that were read last are the recent ones. The others are kept while there is room, so that an archive that fits is
compressed once, whoever reads it: the first chunks stay, because readers begin at the start.

Threading: any thread. Methods wait only for the lock.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bentofs.store.formats.write.chunks import Key, Name
from bentofs.store.util.memory_budget import MemoryBudget
from bentofs.store.util.threads import started

_MOST = 48 << 20  # bytes at most, if no other cache needs them
_LEAST = 2 << 20  # bytes, whatever other caches need: a chunk is read in several requests
_RECENT = 8 << 20  # bytes of recent chunks that are not evicted for others
_READ_ONCE = 4 << 20  # the same for archives that are read once: a few readers are within a chunk, or made it ahead
_PERHAPS = 6 << 20  # bytes at most of measured chunks without a known reader
_ENTRY = 600  # bytes that a chunk takes in addition to its content
_IDLE_SECONDS = 20.0  # seconds without use after which all chunks are dropped


class _Kept(NamedTuple):
    """A chunk that is not a recent one."""

    batch: object | None  # it was measured with; None if it was read, or if nobody may read it
    made: bytes
    used: float  # monotonic


class ChunkCache:
    """Compressed chunks in bounded memory. The memory is freed when nobody reads."""

    def __init__(self, on_shrink: Callable[[], None], budget: MemoryBudget) -> None:
        """`on_shrink` is called when decoders need all memory, and after a while without use."""
        self._on_shrink = on_shrink
        self._reads_once = budget.reads_once
        self._most_recent = _READ_ONCE if budget.reads_once else _RECENT
        self._share = budget.share(_MOST, self._shrink, least=_LEAST, is_spare=True)
        self._lock = threading.Lock()
        self._recent: OrderedDict[Key, bytes] = OrderedDict()
        self._recent_size = 0
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()  # those to evict for a new batch first
        self._kept_size = 0
        self._used = 0.0  # monotonic
        self._timer: threading.Timer | None = None

    @property
    def size(self) -> int:
        """Return the bytes that all chunks take."""
        return self._recent_size + self._kept_size

    def __contains__(self, key: Key) -> bool:
        return key in self._recent or key in self._kept

    def get(self, key: Key) -> bytes | None:
        """Return a chunk; None if it is not in the cache."""
        with self._lock:
            made = self._recent.get(key)
            if made is not None:
                self._recent.move_to_end(key)
            elif (kept := self._kept.pop(key, None)) is not None:
                made = kept.made
                self._kept_size -= _weight(made)
                if self._reads_once:
                    self._keep(key, made)
                else:
                    self._put(key, _Kept(kept.batch, made, time.monotonic()))
                    self._note_use()
            return made

    def keep(self, key: Key, made: bytes) -> None:
        """Keep a chunk that was made for a reader, or ahead of a reader."""
        with self._lock:
            self._drop_kept(key)
            self._keep(key, made)

    def keep_fresh(self, batch: object | None, name: Name, first: int, chunks: Sequence[bytes]) -> None:
        """Keep chunks that were just measured, while there is room: their reader is about to come.

        Chunks of the same `batch` are not evicted: a reader begins at the start, so the first chunks stay. A `batch` of
        None is for readers that may never come. Its chunks evict no others, and are evicted first. `first`: the number
        of the first chunk in the content with this name.
        """
        with self._lock:
            limit = self._share.limit if batch is not None else min(self._share.limit, _PERHAPS)
            self._note_use()
            for number, made in enumerate(chunks, first):
                if not self._make_room(batch, _weight(made), limit):
                    break
                key = (name, number)
                self._drop_kept(key)
                self._put(key, _Kept(batch, made, self._used))
                if batch is None:
                    self._kept.move_to_end(key, last=False)
            self._share.report(self.size)

    def forget(self, name: Name) -> None:
        """Drop all chunks of some content."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == name]:
                self._drop_kept(key)
            for key in [key for key in self._recent if key[0] == name]:
                self._recent_size -= _weight(self._recent.pop(key))
            self._share.report(self.size)

    def _make_room(self, batch: object | None, weight: int, limit: int) -> bool:
        """Drop chunks until one of a batch fits; False if it does not."""
        while self.size + weight > limit:
            oldest = next(iter(self._kept), None)
            if batch is None or oldest is None or self._kept[oldest].batch is batch:
                return False
            self._drop_kept(oldest)
        return True

    def _keep(self, key: Key, made: bytes) -> None:
        if key in self._recent:  # it was measured, and read, while it was made ahead
            self._recent_size -= _weight(self._recent[key])
        self._recent[key] = made
        self._recent_size += _weight(made)
        self._note_use()
        while self._recent_size > self._most_recent:
            self._retire_oldest()
        self._fit()

    def _retire_oldest(self) -> None:
        """Take the oldest of the recent chunks away. Keep it where there is room, or in place of unused chunks."""
        key, made = self._recent.popitem(last=False)
        weight = _weight(made)
        self._recent_size -= weight
        if self._reads_once:
            return
        limit = self._share.limit - (self._most_recent - self._recent_size)  # the recent ones need that soon
        while self.size + weight > limit:
            oldest = next(iter(self._kept), None)
            if oldest is None or self._kept[oldest].used > self._used - _IDLE_SECONDS:
                return
            self._drop_kept(oldest)
        self._put(key, _Kept(None, made, self._used))

    def _shrink(self) -> None:
        with self._lock:
            self._fit()
        if self._share.limit == _LEAST:
            self._on_shrink()

    def _fit(self) -> None:
        limit = self._share.limit
        while self.size > limit:
            if self._recent_size > min(self._most_recent, limit) or not self._kept:
                self._recent_size -= _weight(self._recent.popitem(last=False)[1])
            else:
                self._drop_kept(next(reversed(self._kept)))  # the chunk that is read last, of all that are kept
        self._share.report(self.size)

    def _put(self, key: Key, kept: _Kept) -> None:
        self._kept[key] = kept
        self._kept_size += _weight(kept.made)

    def _drop_kept(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._kept_size -= _weight(kept.made)

    def _note_use(self) -> None:
        self._used = time.monotonic()
        if self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        timer = threading.Timer(_IDLE_SECONDS, self._drop_idle)
        timer.daemon = True
        self._timer = timer if started(timer) else None  # else the next chunk tries again

    def _drop_idle(self) -> None:
        with self._lock:
            if time.monotonic() - self._used < _IDLE_SECONDS:
                self._start_timer()
                return
            self._timer = None
            self._kept.clear()
            self._recent.clear()
            self._kept_size = self._recent_size = 0
            self._share.report(0)
        self._on_shrink()


def _weight(made: bytes) -> int:
    return len(made) + _ENTRY
