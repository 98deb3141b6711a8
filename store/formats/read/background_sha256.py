"""The SHA-256 of an arriving archive, computed in its own thread behind the archive's reader.

If nobody waits for the digest yet, the thread goes on after the archive was read.

Threading: one thread reads the archive. Any thread may ask for the digest.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable

from bentofs.store.errors import CancelledError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.util.aligned_buffer import page_buffer

_READ = 128 << 10  # bytes digested at a time: each upload has such a buffer
_LAG = 1 << 30  # bytes that a `later` digest lags behind; a file deleted meanwhile keeps its disk space until it ends
_LATE = threading.BoundedSemaphore(4)  # digests in this process that go on after their archive was read


class ArchiveDigest:
    """The digest of an archive. Reads like that archive (`ArrivingFile`)."""

    def __init__(self, arriving: ArrivingFile, *, later: bool = False) -> None:
        """`later`: nobody needs the digest right after the read. So the reader gets the processor first."""
        self._arriving = arriving
        descriptor = arriving.fileno()
        if descriptor is None:
            raise ValueError("its bytes are in no file: it must make its digest itself")
        self._source = descriptor
        self._descriptor = os.dup(descriptor)  # the other one may be closed before this thread has read everything
        self._lag = _LAG if later else 0
        self._condition = threading.Condition()
        self._seen = 0  # bytes that the reader has read, so they have arrived
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
        try:
            self._thread.start()
        except BaseException:
            os.close(self._descriptor)
            raise

    def read_into(self, view: memoryview, offset: int) -> int:
        """Implement `ArrivingFile.read_into`."""
        count = self._arriving.read_into(view, offset)
        if offset + count > self._seen:
            with self._condition:
                self._seen = offset + count
                if self._is_due():
                    self._condition.notify()
        return count

    def length(self) -> int:
        """Implement `ArrivingFile.length`."""
        return self._arriving.length()

    def fileno(self) -> int | None:
        """Implement `ArrivingFile.fileno`."""
        return self._source

    def take_memory(self, amount: int) -> int:
        """Implement `ArrivingFile.take_memory`."""
        return self._arriving.take_memory(amount)

    def end(self) -> None:
        """Note that the whole archive was read. If too many digests go on already, wait for this one."""
        length = self._arriving.length()
        may_be_late = self._lag > 0 and _LATE.acquire(blocking=False)
        with self._condition:
            self._seen, self._all_seen, self._is_late = length, True, may_be_late
            self._condition.notify()
        if not may_be_late:
            self._thread.join()

    def value(self) -> str:
        """Wait for the digest of the whole archive and return it in hexadecimal. Call it only after `end`.

        Raises:
            OSError: the bytes could not be read again.
            CancelledError: the digest was cancelled.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        if self._value is None:
            raise CancelledError("the digest of the archive was cancelled")
        return self._value

    def when_ended(self, tell: Callable[[str | None], None]) -> None:
        """Call `tell` with the digest, from some thread and before `value` returns it. Call it with None if the digest
        failed or was cancelled."""
        with self._condition:
            if not self._ended:
                self._told.append(tell)
                return
        tell(self._value)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for the digest's thread. Return True if it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Cancel the digest, unless it is complete."""
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
        """Digest the archive. Return True if all of it was digested."""
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
