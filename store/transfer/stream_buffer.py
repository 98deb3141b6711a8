"""A file that arrives over the network, read as it comes: nothing of it lies on disk, and little of it in memory.

Archives are unpacked from start to end. Some reads go back (a zip that only its directory explains). They fetch ranges
if the source can seek. If it cannot, a zip's bytes are kept in a file without a name as they pass.

Threading: one thread fetches, any number read.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import IO

from bentofs.store.errors import CancelledError, DamagedArchiveError
from bentofs.store.formats.read.growing_file import MOST_MEMORY
from bentofs.store.util.fs import writing

_AHEAD = 8 << 20  # bytes fetched ahead of the reader
_BEHIND = 2 << 20  # bytes kept behind it: decoders give back unused ones
_BACK = 1 << 20  # bytes read at once further behind
_JOIN_SECONDS = 5.0
_ZIP = b"PK"

ReadAt = Callable[[int, int], bytes]


class StreamedFile:
    """Bytes that come from an iterator (`store.formats.read.growing_file.DigestedFile`)."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        size: int | None,
        *,
        read_at: ReadAt | None,
        spool: str,
        progress: Callable[[int], None],
    ) -> None:
        """`size`: the expected bytes, None if unknown; `read_at`: returns a range, if the source can seek; `spool`: a
        directory for the bytes that must be kept if it cannot."""
        self._chunks = chunks
        self._size = size
        self._read_at = read_at
        self._spool = spool
        self._progress = progress
        self._condition = threading.Condition()
        self._window: list[bytes] = []
        self._starts: list[int] = []
        self._end = 0  # bytes that have come
        self._position = 0  # the furthest position of the readers
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None
        self._digest = hashlib.sha256()
        self._kept: IO[bytes] | None = None  # the bytes of a zip that have passed
        self._back: tuple[int, bytes] = (0, b"")
        self._thread = threading.Thread(target=self._fetch, name="fetch", daemon=True)
        self._thread.start()

    def read_into(self, view: memoryview, offset: int) -> int:
        """See `ArrivingFile.read_into`."""
        if not view:
            return 0
        with self._condition:
            self._position = max(self._position, offset)
            self._condition.notify_all()
            self._condition.wait_for(lambda: offset < self._end or self._ended)
            if offset >= self._end:
                if self._error is not None:
                    raise self._error
                return 0
            if self._starts and offset >= self._starts[0]:
                number = bisect_right(self._starts, offset) - 1
                start = offset - self._starts[number]
                part = self._window[number][start : start + len(view)]
                view[: len(part)] = part
                self._position = max(self._position, offset + len(part))
                self._condition.notify_all()
                return len(part)
            end = self._end
        return self._go_back(view, offset, end)

    def length(self) -> int:
        """See `ArrivingFile.length`."""
        if self._size is not None and self._read_at is not None:
            return self._size
        return self._drain()

    def fileno(self) -> None:
        """Return None: no file holds the bytes."""
        return

    def take_memory(self, amount: int) -> int:
        """Do what `ArrivingFile.take_memory` does. Take the most at once: a stream may not be read again with more."""
        return max(amount, MOST_MEMORY)

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes, hexadecimal, once all have come. Raises the errors of `read_into`."""
        self._drain()
        return self._digest.hexdigest()

    def close(self) -> None:
        """Stop fetching."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        self._thread.join(_JOIN_SECONDS)  # a source that blocks for ever is left until the process ends
        if self._kept is not None and not self._thread.is_alive():
            self._kept.close()

    def _drain(self) -> int:
        with self._condition:
            while not self._ended:
                self._position = self._end
                self._condition.notify_all()
                self._condition.wait()
            if self._error is not None:
                raise self._error
            return self._end

    def _go_back(self, view: memoryview, offset: int, end: int) -> int:
        count = min(len(view), end - offset)
        if self._kept is not None:
            return os.preadv(self._kept.fileno(), [view[:count]], offset)
        if self._read_at is None:
            raise DamagedArchiveError(
                "the archive must be read backwards, but it comes from a stream: save it as a file first"
            )
        start, content = self._back
        if not start <= offset < start + len(content):
            start, content = offset, self._read_at(offset, min(max(_BACK, count), (self._size or end) - offset))
            self._back = start, content
        part = content[offset - start : offset - start + count]
        view[: len(part)] = part
        return len(part)

    def _fetch(self) -> None:
        error: BaseException | None = None
        try:
            for chunk in self._chunks:
                if not self._take(chunk):
                    raise CancelledError("it was cancelled")
            if self._size is not None and self._end != self._size:
                raise DamagedArchiveError(f"only {self._end:,} of {self._size:,} bytes came: try again")
        except BaseException as failed:  # passed to the readers
            error = failed
        finally:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()
        with self._condition:
            self._ended, self._error = True, error
            self._condition.notify_all()

    def _take(self, chunk: bytes) -> bool:
        """Put a chunk where readers find it, once they have got far enough. False if nobody wants it any more."""
        if not chunk:
            return not self._stopped
        self._digest.update(chunk)
        if self._end == 0 and self._read_at is None and chunk.startswith(_ZIP[: len(chunk)]):
            with writing(self._spool):
                self._kept = tempfile.TemporaryFile(dir=self._spool, buffering=0)  # noqa: SIM115 - closed in close()
        if self._kept is not None:
            with writing(self._spool):
                view = memoryview(chunk)
                while view:
                    view = view[self._kept.write(view) :]
        self._progress(len(chunk))
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self._end - self._position < _AHEAD)
            self._starts.append(self._end)
            self._window.append(chunk)
            self._end += len(chunk)
            while len(self._window) > 1 and self._starts[1] <= self._position - _BEHIND:
                del self._window[0], self._starts[0]
            self._condition.notify_all()
            return not self._stopped
