"""Segments of an archive with very many members. Only the segments near its readers are laid out.

Threading: any thread may read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from bentofs.store.formats.pieces import PieceList, Views

MEMBERS = 1000  # in one segment
_KEPT = 4  # segments of one archive that stay laid out
AT_ONCE = MEMBERS * _KEPT  # members at most of an archive that is laid out as a whole


class Segments:
    """The segments of one archive that were read most recently."""

    def __init__(self, lay_out: Callable[[int], PieceList]) -> None:
        """`lay_out` makes the segment with a number. It must always give the same bytes."""
        self._lay_out = lay_out
        self._lock = threading.Lock()  # not held while laying out
        self._recent: OrderedDict[int, PieceList] = OrderedDict()

    def at(self, number: int) -> PieceList:
        """Return the segment with this number."""
        with self._lock:
            found = self._recent.get(number)
            if found is not None:
                self._recent.move_to_end(number)
                return found
        made = self._lay_out(number)
        with self._lock:
            found = self._recent.setdefault(number, made)
            if len(self._recent) > _KEPT:
                self._recent.popitem(last=False)
        return found


class Segment:
    """A piece: one segment that is laid out on read."""

    __slots__ = ("_number", "_segments", "length")

    def __init__(self, segments: Segments, number: int, length: int) -> None:
        self._segments = segments
        self._number = number
        self.length = length

    def read_into(self, views: Views, offset: int) -> None:
        """Implement `Piece.read_into`."""
        self._segments.at(self._number).read_into(views, offset)
