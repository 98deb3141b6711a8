"""Segments: an archive of very many members, of which only those near its readers are laid out.

Threading: any thread may read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from bentofs.store.formats.pieces import PieceList, Views

MEMBERS = 1000  # in one segment
_KEPT = 4  # segments of an archive that stay laid out
AT_ONCE = MEMBERS * _KEPT  # members of an archive that is laid out as a whole


class Segments:
    """The segments of one archive that were read last."""

    def __init__(self, lay_out: Callable[[int], PieceList]) -> None:
        """`lay_out` makes the segment of a number; always of the same bytes."""
        self._lay_out = lay_out
        self._lock = threading.Lock()  # not held while laying out
        self._recent: OrderedDict[int, PieceList] = OrderedDict()

    def at(self, number: int) -> PieceList:
        """The segment of a number."""
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
    """A piece: one segment, laid out when it is read."""

    __slots__ = ("_number", "_segments", "length")

    def __init__(self, segments: Segments, number: int, length: int) -> None:
        self._segments = segments
        self._number = number
        self.length = length

    def read_into(self, views: Views, offset: int) -> None:
        """As `Piece.read_into`."""
        self._segments.at(self._number).read_into(views, offset)
