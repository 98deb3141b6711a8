"""Pieces: runs of an archive's bytes. Their length is known before any byte is read.

An archive is an ordered list of pieces, and is itself a piece. Prefix sums and a bisection find the piece at any offset
(as mod_zip and restic do). Bytes are written directly into the caller's buffers, which may be scattered.

Threading: any thread may call `read_into`. Pieces are immutable once built, or lock their state.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Protocol

Views = Sequence[memoryview]


class Piece(Protocol):
    """A run of bytes of known length."""

    @property
    def length(self) -> int:
        """Return the length in bytes."""

    def read_into(self, views: Views, offset: int) -> None:
        """Fill all views, in order, with the bytes from `offset` on. The caller must not read beyond `length`.

        Raises:
            SourceChangedError: the source no longer has the bytes that were laid out.
            StoreUnreadableError: an I/O error.
        """


class Literal:
    """Bytes in memory."""

    __slots__ = ("_content", "length")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def read_into(self, views: Views, offset: int) -> None:
        copy_into(views, self._content, offset)


class Zeros:
    """Padding: zeros."""

    __slots__ = ("length",)

    def __init__(self, length: int) -> None:
        self.length = length

    def read_into(self, views: Views, offset: int) -> None:  # noqa: ARG002 - all zeros are the same
        for view in views:
            view[:] = bytes(len(view))


class Generated:
    """Bytes of known length that are made on read: a header, a checksum."""

    __slots__ = ("_make", "length")

    def __init__(self, length: int, make: Callable[[], bytes]) -> None:
        """`make` must return the same `length` bytes on every call."""
        self._make = make
        self.length = length

    def read_into(self, views: Views, offset: int) -> None:
        content = self._make()
        if len(content) != self.length:
            raise AssertionError(f"{len(content)} bytes were made where {self.length} were laid out")
        copy_into(views, content, offset)


class Repeated:
    """A short pattern, repeated many times."""

    __slots__ = ("_pattern", "length")

    def __init__(self, pattern: bytes, count: int) -> None:
        self._pattern = pattern
        self.length = len(pattern) * count

    def read_into(self, views: Views, offset: int) -> None:
        for view in views:
            phase = offset % len(self._pattern)
            times = (phase + len(view)) // len(self._pattern) + 1
            view[:] = (self._pattern * times)[phase : phase + len(view)]
            offset += len(view)


class Slice:
    """A range of another piece."""

    __slots__ = ("_start", "_whole", "length")

    def __init__(self, whole: Piece, start: int, length: int) -> None:
        self._whole = whole
        self._start = start
        self.length = length

    def read_into(self, views: Views, offset: int) -> None:
        self._whole.read_into(views, self._start + offset)


class PieceList:
    """Pieces one after another."""

    __slots__ = ("_pieces", "_starts", "length")

    def __init__(self, pieces: Sequence[Piece] = ()) -> None:
        self._starts = array("Q")
        self._pieces: list[Piece] = []
        self.length = 0
        for piece in pieces:
            self.append(piece)

    def append(self, piece: Piece) -> None:
        """Add a piece at the end, only before the first read. An empty piece is ignored."""
        if piece.length:
            self._starts.append(self.length)
            self._pieces.append(piece)
            self.length += piece.length

    def read_into(self, views: Views, offset: int) -> None:
        wanted = 0
        for view in views:
            wanted += len(view)
        if not wanted:
            return
        index = bisect_right(self._starts, offset) - 1
        piece = self._pieces[index]
        within = offset - self._starts[index]
        if within + wanted <= piece.length:  # the usual case: all from one piece
            piece.read_into(views, within)
            return
        rest = list(views)
        while wanted:
            piece = self._pieces[index]
            count = min(piece.length - within, wanted)
            head, rest = split(rest, count)
            piece.read_into(head, within)
            wanted -= count
            within = 0
            index += 1


def split(views: Views, count: int) -> tuple[list[memoryview], list[memoryview]]:
    """Split the views after `count` bytes: return the first part and the rest."""
    head: list[memoryview] = []
    for number, view in enumerate(views):
        if count <= len(view):
            head.append(view[:count])
            rest = [view[count:]] if count < len(view) else []
            return head, rest + list(views[number + 1 :])
        head.append(view)
        count -= len(view)
    raise AssertionError("more bytes were asked for than the views hold")


def copy_into(views: Views, content: bytes, offset: int) -> None:
    """Fill the views from `content[offset:]`."""
    for view in views:
        end = offset + len(view)
        view[:] = content[offset:end]
        offset = end


def read_bytes(piece: Piece, offset: int, size: int) -> bytes:
    """Return `size` bytes of a piece from `offset` on. The piece must have them."""
    buffer = bytearray(size)
    if size:
        piece.read_into([memoryview(buffer)], offset)
    return bytes(buffer)
