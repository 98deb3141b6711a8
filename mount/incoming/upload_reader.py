"""UploadReader: an upload that is still being written, for readers that follow its writer.

Knows no FUSE. Threading: one writer, any number of readers.
"""

from __future__ import annotations

import os
import threading

from bentofs.mount.incoming.decoder_memory import DecoderMemory
from bentofs.store.errors import CancelledError, PostponedError

_AHEAD_KEPT = 1000  # runs of bytes that arrived ahead of a gap
_BATCH = 1 << 20  # bytes to wait for at once: each wake-up of a reader costs the writer time


class UploadReader:
    """A file that is still being written, for readers that follow the writer (`ArrivingFile`)."""

    def __init__(self, descriptor: int, memory: DecoderMemory) -> None:
        self._descriptor = descriptor
        self._memory = memory
        self._condition = threading.Condition()
        self._available = 0  # bytes from the start without a gap
        self._ahead: dict[int, int] = {}  # start -> end of bytes that arrived beyond a gap
        self._consumed = 0  # how far any reader has got
        self._length: int | None = None
        self._stopped: CancelledError | None = None  # the error that readers get

    def wrote(self, start: int, end: int) -> bool:
        """Note written bytes. Return False if a reader may have seen the old bytes, or the end."""
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
        """Tell the readers that all `length` bytes are there. Bytes that were never written are zeros."""
        with self._condition:
            self._length = self._available = length
            self._condition.notify_all()

    def cancel(self) -> None:
        """Stop the readers."""
        with self._condition:
            self._stopped = CancelledError("the upload has gone")
            self._condition.notify_all()
        self._memory.look_again()

    def postpone(self) -> None:
        """Stop the readers, unless the file is whole. Another run will read it all."""
        with self._condition:
            if not self.is_whole and self._stopped is None:
                self._stopped = PostponedError("there is no memory to stage the upload while it arrives")
                self._condition.notify_all()

    def check(self) -> None:
        """Raise the error that stops the readers, if there is one."""
        if self._stopped is not None:
            raise self._stopped

    @property
    def is_whole(self) -> bool:
        """True if the file is whole."""
        return self._length is not None

    @property
    def unread(self) -> int:
        """Return the number of bytes that are there and that no reader has seen, or that another run must read."""
        return self._available - (self._consumed if self._stopped is None else 0)

    def read_into(self, view: memoryview, offset: int) -> int:
        """Do what `ArrivingFile.read_into` does."""
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
        """Do what `ArrivingFile.length` does."""
        with self._condition:
            while self._length is None:
                self.check()
                self._condition.wait()
            return self._length

    def fileno(self) -> int:
        """Do what `ArrivingFile.fileno` does."""
        return self._descriptor

    def take_memory(self, amount: int) -> int:
        """Do what `ArrivingFile.take_memory` does."""
        self._memory.take(self, amount)
        return amount
