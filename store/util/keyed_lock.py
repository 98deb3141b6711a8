"""KeyedLock: one lock for each key.

Threading: any thread. Keys are compared by equality. The lock of a key exists only while a thread holds it or waits for
it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class _Turn:
    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted = 0  # threads that hold it or wait for it


class KeyedLock:
    """A lock for each key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _turns; never held while waiting for a key
        self._turns: dict[Hashable, _Turn] = {}

    def is_awaited(self, what: Hashable) -> bool:
        """Tell whether a thread waits for the lock of the key `what`."""
        with self._lock:
            turn = self._turns.get(what)
            return turn is not None and turn.wanted > 1

    @contextmanager
    def at(self, what: Hashable) -> Iterator[None]:
        """Hold the lock of the key `what` during the context."""
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
