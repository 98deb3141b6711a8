"""The SHA-256 of an archive that arrives, made in a thread of its own behind whoever reads it; and after that, where
nobody waits for it yet.

Threading: one thread reads the archive; any may ask for the digest.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from bentofs.store.errors import CancelledError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.util.aligned_buffer import page_buffer

_READ = 1 << 20  # bytes digested at a time
_LAG = 1 << 30  # bytes that a digest for later is behind: what is deleted meanwhile keeps its room on the disk so long
_LATE = threading.BoundedSemaphore(4)  # digests in this process that go on after their archive has been read


class ArchiveDigest:
    """Reads as the archive that it is the digest of (`ArrivingFile`)."""

    def __init__(self, arriving: ArrivingFile, *, later: bool = False) -> None:
        """`later`: it is not needed as soon as the archive has been read, which then has the processor for itself."""
        self._arriving = arriving
        descriptor = arriving.fileno()
        if descriptor is None:
            raise ValueError("its bytes are in no file: it must make its digest itself")
        self._source = descriptor
        self._descriptor = os.dup(descriptor)  # as the other may be closed before this has read all
        self._lag = _LAG if later else 0
        self._condition = threading.Condition()
        self._seen = 0  # bytes that a reader has had, so that they are there
        self._done = 0  # bytes that are digested
        self._all_seen = False
        self._is_late = False
        self._stopped = False
        self._sha256 = hashlib.sha256()
        self._error: OSError | None = None
        self._value: str | None = None
        self._ended = False
        self._told: list[Callable[[str | None], None]] = []
        self._thread = threading.Thread(target=self._work, name="digest", daemon=True)
        self._thread.start()

    def read_into(self, view: memoryview, offset: int) -> int:
        """As `ArrivingFile.read_into`."""
        count = self._arriving.read_into(view, offset)
        if offset + count > self._seen:
            with self._condition:
                self._seen = offset + count
                if self._is_due():
                    self._condition.notify()
        return count

    def length(self) -> int:
        """As `ArrivingFile.length`."""
        return self._arriving.length()

    def fileno(self) -> int | None:
        """As `ArrivingFile.fileno`."""
        return self._source

    def take_memory(self, amount: int) -> int:
        """As `ArrivingFile.take_memory`."""
        return self._arriving.take_memory(amount)

    def end(self) -> None:
        """All has arrived and been read. Where too many digests go on already, waits for this one."""
        length = self._arriving.length()
        may_be_late = self._lag > 0 and _LATE.acquire(blocking=False)
        with self._condition:
            self._seen, self._all_seen, self._is_late = length, True, may_be_late
            self._condition.notify()
        if not may_be_late:
            self._thread.join()

    def value(self) -> str:
        """The digest of the whole, hexadecimal. Only after `end`; waits until it is made.

        Raises:
            OSError: the bytes could not be read again.
            CancelledError: it was given up.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise CancelledError("the digest of the archive was given up")
        return self._value

    def when_ended(self, tell: Callable[[str | None], None]) -> None:
        """Have `tell` called, from some thread, with the digest before `value` gives it; with None if it cannot be made
        or was given up."""
        with self._condition:
            if not self._ended:
                self._told.append(tell)
                return
        tell(self._value)

    def wait(self, seconds: float) -> bool:
        """Whether the digest's thread has ended, at last after so many seconds."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Give it up, unless it is made."""
        with self._condition:
            self._stopped = self._all_seen = True
            self._condition.notify()
        self._thread.join()

    def _work(self) -> None:
        value = None
        try:
            if self._follow():
                value = self._sha256.hexdigest()
        except OSError as error:
            self._error = error
        finally:
            os.close(self._descriptor)
            with self._condition:
                self._value, self._ended = value, True
            for tell in self._told:
                tell(value)
            if self._is_late:
                _LATE.release()

    def _follow(self) -> bool:
        """Whether all was digested."""
        buffer = page_buffer(_READ)
        while not self._stopped:
            with self._condition:
                self._condition.wait_for(self._is_due)
                end = self._seen if self._all_seen else self._seen - self._lag
            while self._done < end and not self._stopped:
                count = os.preadv(self._descriptor, [buffer[: min(_READ, end - self._done)]], self._done)
                if not count:
                    raise OSError(f"it became shorter at {self._done} bytes")
                self._sha256.update(buffer[:count])
                self._done += count
            if self._all_seen and self._done >= self._seen:
                return not self._stopped
        return False

    def _is_due(self) -> bool:
        return self._all_seen or self._seen - self._done >= self._lag + _READ
