"""Segments of an archive with very many members. Only the segments near its readers are laid out.

Threading: any thread may read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from bentofs.store.formats.pieces import PieceList, Views
from bentofs.store.util.keyed_lock import KeyedLock

MEMBERS = 250  # in one segment
_KEPT = 4  # segments of one archive that stay laid out
AT_ONCE = MEMBERS * _KEPT  # members at most of an archive that is laid out as a whole

LayOut = Callable[[range], PieceList]  # lays out the members with these numbers; always gives the same bytes


def lay_out_in_segments(count: int, lay_out: LayOut, length: Callable[[range], int]) -> PieceList:
    """Lay out `count` members. If there are very many, each read lays out only the members that it needs.

    `length`: gives the bytes that `lay_out` would lay out."""
    if count <= AT_ONCE:
        return lay_out(range(count))
    segments = _Segments(lay_out)
    starts = range(0, count, MEMBERS)
    every = (range(start, min(start + MEMBERS, count)) for start in starts)
    return PieceList([_Segment(segments, numbers, length(numbers)) for numbers in every])


class _Segments:
    """The segments of one archive that were read most recently."""

    def __init__(self, lay_out: LayOut) -> None:
        self._lay_out = lay_out
        self._turns = KeyedLock()  # several readers of a segment lay it out once
        self._lock = threading.Lock()  # guards _recent; not held while laying out
        self._recent: OrderedDict[range, PieceList] = OrderedDict()

    def at(self, numbers: range) -> PieceList:
        """Return the segment of these members."""
        return self._find(numbers) or self._make(numbers)

    def _find(self, numbers: range) -> PieceList | None:
        with self._lock:
            found = self._recent.get(numbers)
            if found is not None:
                self._recent.move_to_end(numbers)
            return found

    def _make(self, numbers: range) -> PieceList:
        with self._turns.at(numbers):
            found = self._find(numbers)
            if found is None:
                found = self._lay_out(numbers)
                with self._lock:
                    self._recent[numbers] = found
                    if len(self._recent) > _KEPT:
                        self._recent.popitem(last=False)
            return found


class _Segment:
    """A piece: one segment that is laid out on read."""

    __slots__ = ("_numbers", "_segments", "length")

    def __init__(self, segments: _Segments, numbers: range, length: int) -> None:
        self._segments = segments
        self._numbers = numbers
        self.length = length

    def read_into(self, views: Views, offset: int) -> None:
        """Implement `Piece.read_into`."""
        self._segments.at(self._numbers).read_into(views, offset)
