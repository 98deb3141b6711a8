"""KeyedLock: of the threads that are about to do the same thing, one at a time.

Threading: any thread. Things are told apart by equality; nothing is kept of those that nobody is at.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class _Turn:
    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0  # threads that have it or wait for it


class KeyedLock:
    """Who is at what."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # never held while a turn lasts
        self._turns: dict[Hashable, _Turn] = {}

    @contextmanager
    def at(self, what: Hashable) -> Iterator[None]:
        """Within this, no other thread is at the same thing."""
        with self._lock:
            turn = self._turns.setdefault(what, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[what]
