"""Arriving: an upload that is still being written, for those who read behind its writer.

Knows no FUSE. Threading: one writer, any number of readers.
"""

from __future__ import annotations

import os
import threading

from bentofs.mount.incoming.decoder_memory import DecoderMemory
from bentofs.store.errors import CancelledError, PostponedError

_AHEAD_KEPT = 1000  # runs of bytes that arrived ahead of a gap
_BATCH = 1 << 20  # bytes that are waited for at once: each time that a reader wakes costs the writer


class Arriving:
    """A file that is still being written, for those who read behind the writer (`ArrivingFile`)."""

    def __init__(self, descriptor: int, memory: DecoderMemory) -> None:
        self._descriptor = descriptor
        self._memory = memory
        self._condition = threading.Condition()
        self._available = 0  # bytes from the start without a gap
        self._ahead: dict[int, int] = {}  # start -> end of what arrived beyond a gap
        self._consumed = 0  # how far any reader has got
        self._length: int | None = None
        self._stopped: CancelledError | None = None  # what readers get

    def wrote(self, start: int, end: int) -> bool:
        """Take note of bytes that were written; False if a reader may have seen what was there before, or the end."""
        with self._condition:
            if self._length is not None or start < self._consumed or len(self._ahead) > _AHEAD_KEPT:
                return False
            if start <= self._available:
                self._available = max(self._available, end)
                while self._available in self._ahead:
                    self._available = self._ahead.pop(self._available)
                if self.unread >= _BATCH:
                    self._condition.notify_all()
            else:
                self._ahead[start] = max(end, self._ahead.get(start, 0))
            return True

    def finish(self, length: int) -> None:
        """All is there: `length` bytes; what was never written is zeros."""
        with self._condition:
            self._length = self._available = length
            self._condition.notify_all()

    def cancel(self) -> None:
        """Have the readers stop."""
        with self._condition:
            self._stopped = CancelledError("the upload has gone")
            self._condition.notify_all()
        self._memory.look_again()

    def postpone(self) -> None:
        """Have the readers stop, unless all is there: another run will read it all."""
        with self._condition:
            if not self.is_whole and self._stopped is None:
                self._stopped = PostponedError("there is no memory to stage the upload while it arrives")
                self._condition.notify_all()

    def check(self) -> None:
        """Raise what the readers are to stop by."""
        if self._stopped is not None:
            raise self._stopped

    @property
    def is_whole(self) -> bool:
        """Whether all is there."""
        return self._length is not None

    @property
    def unread(self) -> int:
        """Bytes that are there and no reader has seen, or that another one will have to read."""
        return self._available - (self._consumed if self._stopped is None else 0)

    def read_into(self, view: memoryview, offset: int) -> int:
        """As `ArrivingFile.read_into`."""
        with self._condition:
            if offset >= self._available:
                wanted = offset + _BATCH
                self._condition.wait_for(
                    lambda: wanted <= self._available or self._length is not None or self._stopped is not None
                )
            self.check()
            count = min(len(view), self._available - offset)
            self._consumed = max(self._consumed, offset + count)
        return os.preadv(self._descriptor, [view[:count]], offset) if count > 0 else 0

    def length(self) -> int:
        """As `ArrivingFile.length`."""
        with self._condition:
            while self._length is None:
                self.check()
                self._condition.wait()
            return self._length

    def fileno(self) -> int:
        """As `ArrivingFile.fileno`."""
        return self._descriptor

    def take_memory(self, amount: int) -> int:
        """As `ArrivingFile.take_memory`."""
        self._memory.take(self, amount)
        return amount
