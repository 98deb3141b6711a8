"""SHA-256 and CRC-32 of files, computed at once or in a helper thread while the writer goes on.

A SHA-256 takes longer than the write itself. Small files are digested at once, since the helper would cost more. So are
all files whose SHA-256 is left out: a CRC-32 takes a tenth of that time.

Threading: one thread feeds a `Digester`; the callbacks run in its helper thread or in the feeding thread.
"""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from bentofs.store.formats.crc32 import crc32

_WAITING = 1 << 20  # bytes that wait for the helper, about; they keep their buffers
_LEAST = 64 << 10  # bytes that any job counts for
_SMALL = 64 << 10  # bytes digested at once, if no part of the file was handed over before
_READ = 128 << 10  # bytes read at a time


class _Job(NamedTuple):
    """A piece of work for the helper."""

    work: Callable[[], None]
    size: int  # bytes of the buffer that it keeps


_END = _Job(lambda: None, 0)  # ends the helper


class _Jobs(queue.Queue[_Job]):
    """A queue of jobs that is full when their buffers have so many bytes together."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._bytes = 0

    def _qsize(self) -> int:
        return self._bytes

    def _put(self, item: _Job) -> None:
        super()._put(item)
        self._bytes += max(item.size, _LEAST)

    def _get(self) -> _Job:
        item: _Job = super()._get()
        self._bytes -= max(item.size, _LEAST)
        return item


class Digester:
    """The helper thread and its queue of jobs."""

    def __init__(self) -> None:
        self._jobs = _Jobs(_WAITING)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def drain(self) -> None:
        """Wait until all jobs are done.

        Raises:
            OSError: bytes could not be read back.
            StoreError: a callback raised it.
        """
        self._jobs.join()
        self.check()

    def check(self) -> None:
        """Raise the first error so far; the same errors as `drain`."""
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the helper; waiting jobs are dropped."""
        if self._thread is not None:
            self._error = self._error or RuntimeError("the digester is closed")
            self._jobs.put(_END)
            self._thread.join()
            self._thread = None

    def hand_over(self, work: Callable[[], None], size: int = 0) -> None:
        """Queue work for the helper. It runs after all earlier work. `size`: bytes of memory that it keeps."""
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="digester", daemon=True)
            thread.start()
            self._thread = thread
        self._jobs.put(_Job(work, size))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not _END:
            if self._error is None:
                try:
                    job.work()
                except Exception as error:  # raised again in the thread that feeds
                    self._error = error
            del job  # with its buffer, before the wait for the next one
            self._jobs.task_done()


class RunningDigest:
    """The digests of bytes in order, computed at once in the caller's thread."""

    def __init__(self, *, has_sha256: bool = True) -> None:
        """`has_sha256`: False to leave out the SHA-256."""
        self._sha256 = hashlib.sha256() if has_sha256 else None
        self._crc32 = 0

    def update(self, view: memoryview) -> None:
        """Digest bytes."""
        if self._sha256 is not None:
            self._sha256.update(view)
        self._crc32 = crc32(view, self._crc32)

    def update_from(self, descriptor: int, offset: int, count: int) -> None:
        """Digest a range of a file.

        Raises:
            OSError: it cannot be read, or is too short.
        """
        buffer = memoryview(bytearray(min(_READ, count)))
        while count:
            got = os.preadv(descriptor, [buffer[: min(len(buffer), count)]], offset)
            if not got:
                raise OSError("the copied file has become shorter")
            self.update(buffer[:got])
            offset += got
            count -= got

    def result(self) -> tuple[str, int]:
        """Return the SHA-256 (hexadecimal; empty if it was left out) and the CRC-32."""
        return self._sha256.hexdigest() if self._sha256 is not None else "", self._crc32


class FileDigest:
    """The digests of one file, computed from its bytes in order."""

    def __init__(self, digester: Digester, *, has_sha256: bool) -> None:
        self._digester = digester
        self._digest = RunningDigest(has_sha256=has_sha256)
        self._at_once = _SMALL if has_sha256 else sys.maxsize  # bytes
        self._handed_over = False

    def update(self, view: memoryview) -> None:
        """Digest bytes, which must not change afterwards."""
        if len(view) <= self._at_once and not self._handed_over:
            self._digest.update(view)
        else:
            self._hand_over(lambda: self._digest.update(view), len(view))

    def update_from(self, descriptor: int, offset: int, count: int) -> None:
        """Digest a range of a file. It must stay open and unchanged until the digester is drained or closed."""
        self._hand_over(lambda: self._digest.update_from(descriptor, offset, count))

    def finish(self, done: Callable[[str, int], None]) -> None:
        """Call `done` with the SHA-256 (hexadecimal) and the CRC-32 once they are known."""
        if self._handed_over:
            self._hand_over(lambda: done(*self._digest.result()))
        else:
            done(*self._digest.result())

    def _hand_over(self, work: Callable[[], None], size: int = 0) -> None:
        self._handed_over = True
        self._digester.hand_over(work, size)
