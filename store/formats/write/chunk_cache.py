"""The cache of chunks: just measured and waiting for their reader, read recently, or made ahead.

Threading: any thread. Methods wait only for the lock.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from bentofs.store.formats.write.chunks import Key, Name
from bentofs.store.util.memory_budget import MemoryBudget

_MOST = 48 << 20  # bytes at most, if no other cache needs them
_LEAST = 2 << 20  # bytes, whatever other caches need: a chunk is read in several requests
_RECENT = 8 << 20  # bytes of read or made-ahead chunks that are not evicted for measured chunks
_MOST_RECENT = 12 << 20  # bytes at most of read or made-ahead chunks
_PERHAPS = 6 << 20  # bytes at most of measured chunks without a known reader
_ENTRY = 600  # bytes that a chunk takes in addition to its content
_IDLE_SECONDS = 20.0  # seconds without use after which all chunks are dropped


class ChunkCache:
    """Compressed chunks in bounded memory. The memory is freed when nobody reads."""

    def __init__(self, on_shrink: Callable[[], None], budget: MemoryBudget) -> None:
        """`on_shrink` is called when decoders need all memory, and after a while without use."""
        self._on_shrink = on_shrink
        self._share = budget.share(_MOST, self._shrink, least=_LEAST, is_spare=True)
        self._lock = threading.Lock()
        self._recent: OrderedDict[Key, bytes] = OrderedDict()
        self._recent_size = 0
        self._fresh: OrderedDict[Key, tuple[object, bytes]] = OrderedDict()
        self._fresh_size = 0
        self._used = 0.0  # monotonic
        self._timer: threading.Timer | None = None

    @property
    def size(self) -> int:
        """Return the bytes that all chunks take."""
        return self._recent_size + self._fresh_size

    def __contains__(self, key: Key) -> bool:
        return key in self._recent or key in self._fresh

    def get(self, key: Key) -> bytes | None:
        """Return a chunk; None if it is not in the cache."""
        with self._lock:
            made = self._recent.get(key)
            if made is not None:
                self._recent.move_to_end(key)
            elif key in self._fresh:
                made = self._drop_fresh(key)
                self._keep(key, made)
            return made

    def keep(self, key: Key, made: bytes) -> None:
        """Keep a chunk that was made for a reader, or ahead of a reader."""
        with self._lock:
            self._keep(key, made)

    def keep_fresh(self, batch: object | None, name: Name, first: int, chunks: Sequence[bytes]) -> None:
        """Keep chunks that were just measured, while there is room: their reader is about to come.

        Chunks of the same `batch` are not evicted: a reader begins at the start, so the first chunks stay. A `batch` of
        None is for readers that may never come. Its chunks evict no others, and are evicted first. `first`: the number
        of the first chunk in the content with this name.
        """
        with self._lock:
            limit = self._share.limit if batch is not None else min(self._share.limit, _PERHAPS)
            for number, made in enumerate(chunks, first):
                if not self._make_room(batch, _weight(made), limit):
                    break
                key = (name, number)
                self._drop_fresh(key)
                self._fresh[key] = (batch, made)
                self._fresh_size += _weight(made)
                if batch is None:
                    self._fresh.move_to_end(key, last=False)
            self._note_use()
            self._share.report(self.size)

    def forget(self, name: Name) -> None:
        """Drop all chunks of some content."""
        with self._lock:
            for key in [key for key in self._fresh if key[0] == name]:
                self._drop_fresh(key)
            for key in [key for key in self._recent if key[0] == name]:
                self._recent_size -= _weight(self._recent.pop(key))
            self._share.report(self.size)

    def _make_room(self, batch: object | None, weight: int, limit: int) -> bool:
        """Drop chunks until one of a batch fits; False if it does not."""
        while self.size + weight > limit:
            if self._recent_size > _RECENT:
                self._drop_oldest_recent()
                continue
            oldest = next(iter(self._fresh), None)
            if batch is None or oldest is None or self._fresh[oldest][0] is batch:
                return False
            self._drop_fresh(oldest)
        return True

    def _keep(self, key: Key, made: bytes) -> None:
        self._recent[key] = made
        self._recent_size += _weight(made)
        self._fit()
        self._note_use()

    def _shrink(self) -> None:
        with self._lock:
            self._fit()
        if self._share.limit == _LEAST:
            self._on_shrink()

    def _fit(self) -> None:
        limit = self._share.limit
        while self._recent_size > _MOST_RECENT:
            self._drop_oldest_recent()
        while self.size > limit:
            if self._recent_size > min(_RECENT, limit) or not self._fresh:
                self._drop_oldest_recent()
            else:
                self._drop_fresh(next(reversed(self._fresh)))  # the chunk that is read last
        self._share.report(self.size)

    def _drop_fresh(self, key: Key) -> bytes:
        kept = self._fresh.pop(key, None)
        if kept is None:
            return b""
        self._fresh_size -= _weight(kept[1])
        return kept[1]

    def _drop_oldest_recent(self) -> None:
        self._recent_size -= _weight(self._recent.popitem(last=False)[1])

    def _note_use(self) -> None:
        self._used = time.monotonic()
        if self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(_IDLE_SECONDS, self._drop_idle)
        self._timer.daemon = True
        self._timer.start()

    def _drop_idle(self) -> None:
        with self._lock:
            if time.monotonic() - self._used < _IDLE_SECONDS:
                self._start_timer()
                return
            self._timer = None
            self._fresh.clear()
            self._recent.clear()
            self._fresh_size = self._recent_size = 0
            self._share.report(0)
        self._on_shrink()


def _weight(made: bytes) -> int:
    return len(made) + _ENTRY
