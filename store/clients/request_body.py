"""Body: the body of a request, as a file that the client library may read several times.

A `HashedBody` is in memory, with its sums, so that it can also be sent without the library."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from typing import Any, Protocol

from bentofs.store.errors import StoreError


class Content(Protocol):
    """Bytes of known length (for example `store.formats.pieces.Piece`, `store.storage.pinned.PinnedFile`)."""

    @property
    def length(self) -> int: ...
    def read_into(self, views: Sequence[memoryview], offset: int) -> None: ...


class Body(io.RawIOBase):
    """A content, or a range of it."""

    def __init__(self, content: Content, start: int = 0, length: int | None = None) -> None:
        super().__init__()
        self._content = content
        self._start = start
        self._length = content.length - start if length is None else length
        self._offset = 0
        self._digest = hashlib.md5(usedforsecurity=False)
        self._digested = 0
        self.error: StoreError | None = None  # the error of a failed read: the library may replace it by its own
        self.touched = time.monotonic()  # time of the last read

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._length}[whence]
        self._offset = max(0, base + offset)
        return self._offset

    def readinto(self, buffer: Any) -> int:  # any object with a buffer: bytearray, memoryview
        view = memoryview(buffer).cast("B")
        count = min(len(view), self._length - self._offset)
        if count <= 0:
            return 0
        view = view[:count]
        try:
            self._content.read_into([view], self._start + self._offset)
        except StoreError as error:
            self.error = error
            raise
        if self._offset == 0:
            self._digest, self._digested = hashlib.md5(usedforsecurity=False), 0
        if self._offset == self._digested:
            self._digest.update(view)
            self._digested += count
        self._offset += count
        self.touched = time.monotonic()
        return count

    def md5(self) -> str | None:
        """Return the hexadecimal MD5 of the last read from start to end; None if there was no such read."""
        return self._digest.hexdigest() if self._digested == self._length else None


class HashedBody(Body):
    """A content in memory."""

    def __init__(self, content: memoryview, md5: str, sha256: str) -> None:
        """`md5`, `sha256`: of the content, hexadecimal."""
        super().__init__(_Memory(content))
        self.content = content
        self.sha256 = sha256
        self._md5 = md5

    def md5(self) -> str:
        return self._md5


class _Memory:
    def __init__(self, content: memoryview) -> None:
        self._content = content
        self.length = len(content)

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            view[:] = self._content[offset : offset + len(view)]
            offset += len(view)
