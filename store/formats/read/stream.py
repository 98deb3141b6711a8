"""Forward-only streams of bytes: the decompressed content of an archive, or its plain bytes.

Threading: one thread per stream.
"""

from __future__ import annotations

from collections.abc import Iterator

from bentofs.store.formats.read.cursor import Cursor
from bentofs.store.util.buffer_pool import BufferPool


class Stream:
    """A forward-only stream of bytes."""

    def __init__(self, cursor: Cursor, chunks: Iterator[bytes | bytearray | memoryview]) -> None:
        """`cursor`: the cursor of the chunks. Its position tells how much of the file was read."""
        self.cursor = cursor
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.position = 0  # bytes taken so far

    def take(self, limit: int) -> memoryview:
        """Return the next bytes: at least one and at most `limit`, none at the end. They do not change later."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest = memoryview(chunk).toreadonly()
        taken, self._rest = self._rest[:limit], self._rest[limit:]
        self.position += len(taken)
        return taken

    def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end."""
        taken = bytes(self.take(count))
        while len(taken) < count and (more := self.take(count - len(taken))):
            taken += more
        return taken

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end, without taking them."""
        start = self.position
        content = self.exactly(count)
        self._rest = memoryview(content + self._rest)
        self.position = start
        return content

    def skip(self, count: int) -> None:
        """Skip `count` bytes, fewer only at the end."""
        while count and (skipped := self.take(count)):
            count -= len(skipped)


class PlainStream(Stream):
    """The unchanged bytes of an arriving file. Skipped bytes are not read."""

    def __init__(self, cursor: Cursor) -> None:
        super().__init__(cursor, _plain(cursor))

    def skip(self, count: int) -> None:
        self.position += count
        if count <= len(self._rest):
            self._rest = self._rest[count:]
        else:
            self._rest = memoryview(b"")
            self.cursor.position = self.position


def _plain(cursor: Cursor) -> Iterator[memoryview]:
    buffers = BufferPool()
    while content := cursor.some_into(buffers.take()):
        yield content
        del content  # or its buffer would not come back before the next one is taken
