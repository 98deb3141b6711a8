"""DecoderMemory: what the decoders of all uploads take together, so that the daemon stays small whatever comes in.

Most archives need little, and there is little for as many as are staged at once. One that needs the most that is
allowed, as those of `xz -9` do, has it while no other has any.

An upload that is staged while it arrives may take as long as it likes, so nobody waits for one. It takes what is left,
or is postponed until all of it is here; and it is postponed, too, when one that is all here needs what it has.

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
        """Whether all of it is here, so that it goes on without waiting for anybody."""

    def postpone(self) -> None:
        """Have it end by PostponedError, unless it is whole."""

    def check(self) -> None:
        """Raises CancelledError: it is to end."""


class DecoderMemory:
    """What decoders may take, together. The caches of the process give way to them."""

    def __init__(self, budget: MemoryBudget, total: int = MOST_MEMORY) -> None:
        """`total`: bytes."""
        self._budget = budget
        self._total = total
        self._condition = threading.Condition()
        self._taken: dict[Sharing, int] = {}  # bytes
        self._waiting = 0

    def take(self, upload: Sharing, amount: int) -> None:
        """Have so many bytes for an upload instead of those that it had.

        Raises:
            PostponedError: it is still arriving, and others have them.
            CancelledError: as `Sharing.check`.
        """
        with self._condition:
            self._taken.pop(upload, None)
            self._condition.notify_all()
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
            self._taken[upload] = amount
        self._reserve()

    def give_back(self, upload: Sharing) -> None:
        """An upload is staged, or will not be."""
        with self._condition:
            self._taken.pop(upload, None)
            self._condition.notify_all()
        self._reserve()

    def look_again(self) -> None:
        """An upload is to end, maybe one that waits."""
        with self._condition:
            self._condition.notify_all()

    def _reserve(self) -> None:
        self._budget.reserve(sum(self._taken.copy().values()))

    def _has(self, amount: int) -> bool:
        return sum(self._taken.values()) + amount <= self._total
