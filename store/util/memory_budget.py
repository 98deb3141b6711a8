"""MemoryBudget: the memory limit of all caches of a process together. Caches shrink when decoders need memory.

A cache with a firm share always gets it. A spare cache gets only the memory that the firm caches leave. Memory that
decoders reserve is taken from all caches.

Threading: any thread. No lock is held while a cache is asked to shrink. No cache holds its own lock while it reports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakMethod

TOTAL = 48 << 20  # bytes


class Share:
    """The share of one cache."""

    def __init__(
        self, budget: MemoryBudget, most: int, least: int, shrink: Callable[[], None], *, is_spare: bool
    ) -> None:
        self._budget = budget
        self._least = least
        self._shrink = WeakMethod(shrink)
        self.most = most
        self.is_spare = is_spare
        self.used = 0

    @property
    def limit(self) -> int:
        """Return the bytes that the cache may take now."""
        return max(self._least, self._budget.limit_of(self))

    @property
    def is_alive(self) -> bool:
        """True if the cache still exists."""
        return self._shrink() is not None

    def report(self, used: int) -> None:
        """Record that the cache takes `used` bytes now."""
        grows = used > self.used
        self.used = used
        if grows and not self.is_spare:
            self._budget.make_room()

    def shrink(self) -> None:
        """Make the cache drop entries until it is within its limit."""
        shrink = self._shrink()
        if shrink is not None:
            shrink()


class MemoryUsage(NamedTuple):
    """The memory of a budget, in bytes."""

    caches: int
    decoders: int  # reserved for them
    limit: int  # of both together


class MemoryBudget:
    """The memory budget of one process."""

    def __init__(
        self, total: int = TOTAL, trim: Callable[[], None] = lambda: None, *, reads_once: bool = False
    ) -> None:
        """`trim`: returns freed memory to the system; called after the caches have shrunk. `reads_once`: each archive
        is read once, from start to end."""
        self.reads_once = reads_once
        self._total = total
        self._trim = trim
        self._lock = threading.Lock()  # guards changes of the fields below
        self._shares: list[Share] = []
        self._firm = 0  # bytes that all firm caches may take
        self._reserved = 0

    @property
    def is_short(self) -> bool:
        """True while decoders have reserved all memory: then keep no buffer for later use."""
        return self._reserved >= self._total

    def usage(self) -> MemoryUsage:
        """Return the memory that caches and decoders take now."""
        return MemoryUsage(sum(share.used for share in self._shares if share.is_alive), self._reserved, self._total)

    def share(self, most: int, shrink: Callable[[], None], *, least: int = 0, is_spare: bool = False) -> Share:
        """Create the share of a cache: at most `most` bytes, and at least `least` even if others need memory.

        `shrink`: the cache's method that drops entries beyond its limit; `is_spare`: beyond `least`, the cache takes
        only the memory that the firm caches leave."""
        share = Share(self, most, least, shrink, is_spare=is_spare)
        with self._lock:
            self._shares = [*(each for each in self._shares if each.is_alive), share]
            self._firm = sum(each.most for each in self._shares if not each.is_spare)
        return share

    def reserve(self, change: int) -> None:
        """Reserve `change` bytes more for decoders, or fewer if it is negative."""
        with self._lock:
            self._reserved += change
            reserved, shares = self._reserved, self._shares
        if change > 0:
            if sum(share.used for share in shares) > self._total - reserved:
                for share in shares:
                    share.shrink()
                self._trim()
            elif reserved > self._total:
                self._trim()  # other work may have freed memory, too

    def limit_of(self, share: Share) -> int:
        """Return the bytes that a cache may take now."""
        room = max(0, self._total - self._reserved)
        if share.is_spare:
            return max(0, min(share.most, room - sum(each.used for each in self._shares if not each.is_spare)))
        return share.most if self._firm <= room else share.most * room // self._firm

    def make_room(self) -> None:
        """Shrink the spare caches, after a firm one has grown."""
        shares = self._shares
        if sum(share.used for share in shares) > self._total - self._reserved:
            for share in shares:
                if share.is_spare:
                    share.shrink()
