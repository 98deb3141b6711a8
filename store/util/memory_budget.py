"""MemoryBudget: the bytes that the caches of a process may take together, and how they give way to decoders.

A cache of firm size has its share whenever it needs it. One of spare size takes what the others leave. What decoders
have reserved is taken from all of them.

Threading: any thread. No lock is held while a cache is asked to shrink; no cache holds its own while it reports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakMethod

TOTAL = 48 << 20  # bytes


class Share:
    """What one cache may take."""

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
        """Bytes that the cache may take now."""
        return max(self._least, self._budget.limit_of(self))

    @property
    def is_alive(self) -> bool:
        """Whether the cache still exists."""
        return self._shrink() is not None

    def report(self, used: int) -> None:
        """The cache takes so many bytes now."""
        grows = used > self.used
        self.used = used
        if grows and not self.is_spare:
            self._budget.make_room()

    def shrink(self) -> None:
        """Have the cache drop what is beyond its limit."""
        shrink = self._shrink()
        if shrink is not None:
            shrink()


class MemoryBudget:
    """The memory of one process."""

    def __init__(self, total: int = TOTAL, trim: Callable[[], None] = lambda: None) -> None:
        """`trim` gives freed memory back to the system; called when the caches have given way."""
        self._total = total
        self._trim = trim
        self._lock = threading.Lock()  # guards the shares
        self._shares: list[Share] = []
        self._firm = 0  # bytes that all caches of firm size may take
        self._reserved = 0

    def share(self, most: int, shrink: Callable[[], None], *, least: int = 0, is_spare: bool = False) -> Share:
        """A share of at most `most` bytes, and `least` whatever others need, for a cache whose method `shrink` drops
        what is beyond its limit. `is_spare`: beyond `least` it takes only what the others leave."""
        share = Share(self, most, least, shrink, is_spare=is_spare)
        with self._lock:
            self._shares = [*(each for each in self._shares if each.is_alive), share]
            self._firm = sum(each.most for each in self._shares if not each.is_spare)
        return share

    def reserve(self, amount: int) -> None:
        """Leave so many bytes to decoders, instead of those that were reserved before."""
        grows = amount > self._reserved
        self._reserved = amount
        if grows:
            shares = self._shares
            if sum(share.used for share in shares) > self._total - amount:
                for share in shares:
                    share.shrink()
                self._trim()

    def limit_of(self, share: Share) -> int:
        """Bytes that a cache may take now."""
        room = max(0, self._total - self._reserved)
        if share.is_spare:
            return max(0, min(share.most, room - sum(each.used for each in self._shares if not each.is_spare)))
        return share.most if self._firm <= room else share.most * room // self._firm

    def make_room(self) -> None:
        """Have the spare caches give way: a firm one has grown."""
        shares = self._shares
        if sum(share.used for share in shares) > self._total - self._reserved:
            for share in shares:
                if share.is_spare:
                    share.shrink()
