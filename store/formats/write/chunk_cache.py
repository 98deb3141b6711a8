"""The chunks that are at hand: measured just now and waiting for their reader, read not long ago, or made ahead.

Threading: any thread; nothing in here waits for anything but the lock.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from bentofs.store.formats.write.chunks import Key, Name
from bentofs.store.util.memory_budget import MemoryBudget

_MOST = 48 << 20  # bytes, if no other cache needs them,
_LEAST = 4 << 20  # and whatever the others need: a chunk is read in several requests
_RECENT = 8 << 20  # of those that were read or made ahead, which do not make room for the measured ones
_PERHAPS = 12 << 20  # up to which those are kept that nobody is known to want, measured or read
_ENTRY = 600  # bytes that a chunk takes beside its content
_IDLE_SECONDS = 20.0  # after which all are dropped


class ChunkCache:
    """Compressed chunks, in bounded memory, given back when nobody reads."""

    def __init__(self, on_idle: Callable[[], None], budget: MemoryBudget) -> None:
        """`on_idle` is called when nothing was asked for or kept for a while; chunks that were kept are gone then."""
        self._on_idle = on_idle
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
        """Bytes that all chunks take."""
        return self._recent_size + self._fresh_size

    def __contains__(self, key: Key) -> bool:
        return key in self._recent or key in self._fresh

    def get(self, key: Key) -> bytes | None:
        """A chunk, if it is at hand."""
        with self._lock:
            made = self._recent.get(key)
            if made is not None:
                self._recent.move_to_end(key)
            elif key in self._fresh:
                made = self._drop_fresh(key)
                self._keep(key, made)
            return made

    def keep(self, key: Key, made: bytes) -> None:
        """Keep a chunk that was made for a reader, or ahead of one."""
        with self._lock:
            self._keep(key, made)

    def keep_fresh(self, batch: object | None, key: Key, made: bytes) -> None:
        """Keep a chunk that was just measured for the reader who is about to come, while there is room. Those of the
        same `batch` come first: a reader begins at the start, so the first ones stay. Those of None, for readers who
        may come, take no room from others, and give theirs first."""
        with self._lock:
            limit = self._share.limit if batch is not None else min(self._share.limit, _PERHAPS)
            while self.size + _weight(made) > limit:
                if self._recent_size > _RECENT:
                    self._drop_oldest_recent()
                    continue
                oldest = next(iter(self._fresh), None)
                if batch is None or oldest is None or self._fresh[oldest][0] is batch:
                    return
                self._drop_fresh(oldest)
            self._drop_fresh(key)
            self._fresh[key] = (batch, made)
            self._fresh_size += _weight(made)
            if batch is None:
                self._fresh.move_to_end(key, last=False)
            self._note_use()
            self._share.report(self.size)

    def forget(self, name: Name) -> None:
        """Drop what is at hand of some content."""
        with self._lock:
            for key in [key for key in self._fresh if key[0] == name]:
                self._drop_fresh(key)
            for key in [key for key in self._recent if key[0] == name]:
                self._recent_size -= _weight(self._recent.pop(key))
            self._share.report(self.size)

    def _keep(self, key: Key, made: bytes) -> None:
        self._recent[key] = made
        self._recent_size += _weight(made)
        self._fit()
        self._note_use()

    def _shrink(self) -> None:
        with self._lock:
            self._fit()

    def _fit(self) -> None:
        limit = self._share.limit
        while self._recent_size > _PERHAPS:
            self._drop_oldest_recent()
        while self.size > limit:
            if self._recent_size > min(_RECENT, limit) or not self._fresh:
                self._drop_oldest_recent()
            else:
                self._drop_fresh(next(reversed(self._fresh)))  # whose turn comes last
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
        self._on_idle()


def _weight(made: bytes) -> int:
    return len(made) + _ENTRY
