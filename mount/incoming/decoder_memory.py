"""DecoderMemory: a limit on the memory of all decoders together, so that the daemon stays small whatever is uploaded.

Most archives need little, and there is enough for as many as are staged at once. An archive may need the most that is
allowed, like those of `xz -9`. It gets that only while no other upload has any.

An upload that is staged while it arrives may take any time, so nobody waits for one. It takes memory that is left, or
it is postponed until it is whole. It is also postponed when a whole upload needs its memory.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import threading
from typing import Protocol

from bentofs.store.formats.read.growing_file import MOST_MEMORY
from bentofs.store.util.memory_budget import MemoryBudget


class Sharing(Protocol):
    """An upload that is being staged."""

    @property
    def is_whole(self) -> bool:
        """True if the upload is whole, so that it goes on and waits for nobody."""

    def postpone(self) -> None:
        """End it with PostponedError, unless it is whole."""

    def check(self) -> None:
        """Raise CancelledError if it is to end."""


class DecoderMemory:
    """The memory that decoders may take together. The caches of the process make room for them."""

    def __init__(self, budget: MemoryBudget, total: int = MOST_MEMORY) -> None:
        """`total`: bytes."""
        self._budget = budget
        self._total = total
        self._condition = threading.Condition()
        self._taken: dict[Sharing, int] = {}  # bytes
        self._waiting = 0

    def take(self, upload: Sharing, amount: int) -> None:
        """Take so many bytes for an upload, in place of those that it had.

        Raises:
            PostponedError: it is still arriving, and others have the memory.
            CancelledError: see `Sharing.check`.
        """
        change = 0
        try:
            with self._condition:
                change -= self._taken.pop(upload, 0)
                self._condition.notify_all()
                self._await(upload, amount)
                self._taken[upload] = amount
                change += amount
        finally:
            self._budget.reserve(change)

    def give_back(self, upload: Sharing) -> None:
        """Give back an upload's memory: it is staged, or will not be."""
        with self._condition:
            freed = self._taken.pop(upload, 0)
            self._condition.notify_all()
        self._budget.reserve(-freed)

    def look_again(self) -> None:
        """Wake the waiting uploads: one of them may be the one that is to end."""
        with self._condition:
            self._condition.notify_all()

    def _await(self, upload: Sharing, amount: int) -> None:
        """Wait until there is memory for an upload that is whole. Postpone one that is arriving if there is none."""
        if not upload.is_whole and (self._waiting or not self._has(amount)):
            upload.postpone()
            upload.check()
        self._waiting += 1
        try:
            while not self._has(amount):
                upload.check()
                for other in self._taken:
                    other.postpone()
                self._condition.wait()
        finally:
            self._waiting -= 1

    def _has(self, amount: int) -> bool:
        return sum(self._taken.values()) + amount <= self._total
