"""Stretches: the ranges of a compressed tar that are packed in one way each, as long as possible.

They are kept in columns: a model of very many files may have as many stretches.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.tar import end_length, tar_spans
from bentofs.store.util.lazy_sequence import LazySequence

_SMALL, _FILE = range(2)


class Stretch(NamedTuple):
    """A range of a compressed tar that is packed in one way."""

    start: int
    stop: int
    packing: Packing
    member: int | None = None  # number of the member, if the stretch is its content


class Stretches(LazySequence[Stretch]):
    """The stretches of one tar."""

    def __init__(self, members: Sequence[Member], mtime: int, packings: Sequence[Packing]) -> None:
        self._packings = packings
        self._starts = array("Q")
        self._ways = bytearray()
        self._numbers = array("I")  # of the member that is a whole stretch
        begin = last = 0
        for number, (_, content, end, size) in enumerate(tar_spans(members, mtime)):
            # The headers around a content of its own are compressed with what is between the contents.
            if size and (packings[number] in (Packing.STORED, Packing.LARGE)):
                self._append(begin, _SMALL)
                self._append(content, _FILE, number)
                begin = content + size
            last = end
        self._append(begin, _SMALL)
        self._starts.append(last + end_length(last))

    def __len__(self) -> int:
        return len(self._ways)

    def _append(self, start: int, way: int, number: int = 0) -> None:
        self._starts.append(start)
        self._ways.append(way)
        self._numbers.append(number)

    def item(self, number: int) -> Stretch:
        """Make the stretch with this number."""
        start, stop, way = self._starts[number], self._starts[number + 1], self._ways[number]
        if way == _FILE:
            member = self._numbers[number]
            return Stretch(start, stop, self._packings[member], member)
        return Stretch(start, stop, Packing.SMALL)
