"""Cursor: a place in an arriving file from which decoders take bytes.

Threading: one thread per cursor.
"""

from __future__ import annotations

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.growing_file import ArrivingFile

_MAX_POSITION = 1 << 62  # bytes: no file is longer, even if an archive says so


class Cursor:
    """A place in an arriving file from which bytes are taken."""

    def __init__(self, arriving: ArrivingFile, position: int = 0, end: int | None = None) -> None:
        """`end`: the offset at which the file appears to end."""
        self.arriving = arriving
        self.position = position
        self._end = end

    def some(self, limit: int) -> bytearray:
        """Return the next bytes: at least one and at most `limit`, none at the end."""
        buffer = bytearray(self._within(limit))
        count = len(self.some_into(memoryview(buffer)))
        return buffer if count == len(buffer) else buffer[:count]

    def some_into(self, buffer: memoryview) -> memoryview:
        """Read the next bytes into a buffer, at least one; none at the end. Return the part that they fill."""
        buffer = buffer[: self._within(len(buffer))]
        count = self.arriving.read_into(buffer, self.position) if buffer else 0
        self.position += count
        return buffer[:count]

    def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end."""
        taken = bytearray()
        while len(taken) < count and (more := self.some(count - len(taken))):
            taken += more
        return bytes(taken)

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end, without taking them."""
        content = self.exactly(count)
        self.position -= len(content)
        return content

    def whole(self, count: int, loss: str) -> bytes:
        """Return the next `count` bytes. `loss`: says in the error what is missing.

        Raises:
            DamagedArchiveError: there are fewer.
        """
        content = self.exactly(count)
        if len(content) < count:
            raise cut_short(loss)
        return content

    def fill(self, view: memoryview) -> None:
        """Fill the view with the next bytes.

        Raises:
            DamagedArchiveError: there are fewer.
        """
        done = 0
        while done < len(view):
            count = self.arriving.read_into(view[done:], self.position)
            if not count:
                raise cut_short("its data has no end")
            done += count
            self.position += count

    def has_all(self, count: int) -> bool:
        """Wait for the next `count` bytes. Return False if the file ends before."""
        return self.arriving.read_into(memoryview(bytearray(1)), self.position + count - 1) == 1

    def _within(self, limit: int) -> int:
        """Return how many of `limit` bytes may come before the end."""
        if self._end is not None:
            limit = max(0, min(limit, self._end - self.position))
        return limit if self.position <= _MAX_POSITION else 0


def cut_short(loss: str) -> DamagedArchiveError:
    """Return the error of an archive that ends too early. `loss`: says what is missing."""
    return DamagedArchiveError.cut_short(loss)


def trailing(what: str) -> DamagedArchiveError:
    """Return the error of other bytes after compressed data. `what`: the kind of that data."""
    return DamagedArchiveError.damaged(f"something that is not {what} follows its {what} data")
