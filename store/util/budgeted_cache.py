"""BudgetedCache: an LRU cache that counts the real size of its entries against the memory budget of the process.

Threading: any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from bentofs.store.util.memory_budget import MemoryBudget

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class BudgetedCache(Generic[_K, _V]):
    """A cache of entries with known sizes."""

    def __init__(self, budget: MemoryBudget, most: int, least: int = 0) -> None:
        """`most`: bytes that all entries may take; `least`: bytes they may take even if other caches need memory. A
        larger entry is kept while it is the last one used."""
        self._lock = threading.Lock()
        self._entries: OrderedDict[_K, tuple[_V, int]] = OrderedDict()
        self._size = 0
        self._share = budget.share(most, self._shrink, least=least)

    @property
    def size(self) -> int:
        """Return the size of all entries in bytes."""
        return self._size

    def get(self, key: _K) -> _V | None:
        """Return the value of a key; None if it is not cached."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            self._entries.move_to_end(key)
            return found[0]

    def get_all(self, keys: Iterable[_K]) -> dict[_K, _V]:
        """Return the cached values among some keys. This does not count as a use."""
        with self._lock:
            return {key: found[0] for key in keys if (found := self._entries.get(key)) is not None}

    def put(self, key: _K, value: _V, weight: int) -> None:
        """Cache a value that takes `weight` bytes."""
        self.put_all([(key, value)], weight)

    def put_all(self, items: Iterable[tuple[_K, _V]], weight: int) -> None:
        """Cache values that take `weight` bytes each."""
        with self._lock:
            for key, value in items:
                self._drop(key)
                self._entries[key] = (value, weight)
                self._size += weight
        self._shrink()

    def put_first(self, key: _K, value: _V, weight: int) -> _V:
        """Cache a value unless the key has one already. Return the cached value."""
        with self._lock:
            known = self._entries.get(key)
            if known is not None:
                return known[0]
            self._entries[key] = (value, weight)
            self._size += weight
        self._shrink()
        return value

    def drop(self, key: _K) -> None:
        """Drop the value of a key."""
        with self._lock:
            self._drop(key)
        self._share.report(self._size)

    def drop_where(self, is_wanted: Callable[[_K], bool]) -> None:
        """Drop the values of all keys for which `is_wanted` is true."""
        with self._lock:
            for key in [key for key in self._entries if is_wanted(key)]:
                self._drop(key)
        self._share.report(self._size)

    def _drop(self, key: _K) -> None:
        self._size -= self._entries.pop(key, (None, 0))[1]

    def _shrink(self) -> None:
        limit = self._share.limit
        with self._lock:
            while self._size > limit and (len(self._entries) > 1 or not limit):
                self._size -= self._entries.popitem(last=False)[1][1]
        self._share.report(self._size)
