"""Source: a place in an arriving file, from which decoders take bytes.

Threading: one thread a source.
"""

from __future__ import annotations

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.growing_file import ArrivingFile

_MAX_POSITION = 1 << 62  # bytes: no file is longer, whatever an archive says


class Source:
    """A place in an arriving file from which bytes are taken."""

    def __init__(self, arriving: ArrivingFile, position: int = 0, end: int | None = None) -> None:
        """`end`: where to act as if the file ended."""
        self.arriving = arriving
        self.position = position
        self._end = end

    def some(self, limit: int) -> bytearray:
        """The next bytes, one at least and `limit` at most; none at the end."""
        if self._end is not None:
            limit = max(0, min(limit, self._end - self.position))
        buffer = bytearray(limit if self.position <= _MAX_POSITION else 0)
        count = self.arriving.read_into(memoryview(buffer), self.position) if buffer else 0
        self.position += count
        return buffer if count == len(buffer) else buffer[:count]

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes, less only at the end."""
        taken = bytearray()
        while len(taken) < count and (more := self.some(count - len(taken))):
            taken += more
        return bytes(taken)

    def fill(self, view: memoryview) -> None:
        """Fill the view with the next bytes.

        Raises:
            DamagedArchiveError: there are less.
        """
        done = 0
        while done < len(view):
            count = self.arriving.read_into(view[done:], self.position)
            if not count:
                raise DamagedArchiveError("the archive is cut short: its data has no end")
            done += count
            self.position += count

    def has_all(self, count: int) -> bool:
        """Wait until the next `count` bytes are there; False if the file ends before."""
        return self.arriving.read_into(memoryview(bytearray(1)), self.position + count - 1) == 1
