"""Plans: the measurements that a compressed archive needs before it can be laid out.

A format returns a plan, `store.archives.chunk_sizes` measures it, and the format lays out the archive by the results. A
plan is data: making one reads no content.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from bentofs.store.formats.pieces import Piece, PieceList, read_bytes
from bentofs.store.formats.write.chunks import Codec, Measured
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.stretches import Stretches
from bentofs.store.formats.write.tar import lay_out_tar
from bentofs.store.formats.write.tar_stream import TarStream


class Range(NamedTuple):
    """A range of the members' tar."""

    start: int
    stop: int


class Part(NamedTuple):
    """Ranges of the members' tar that become one chunk each.

    The functions get the plan, and do not hold it: a plan that refers to itself would stay in memory, with all members
    of its archive, until Python collects cyclic garbage."""

    codec: Callable[[int], Codec]  # for an effort. It has no window, and one name at any effort
    ranges: Callable[[Plan], Iterable[Range]]  # computes them: ordered, none empty, none overlapping another
    # The same, if each range is a piece of its own without the tar.
    pieces: Callable[[Plan], Iterable[Piece]] | None = None
    judge: Callable[[Plan], int] | None = None  # returns the effort from a sample; None if there is only one


class Plan:
    """The measurements that one archive needs."""

    def __init__(
        self,
        members: Sequence[Member],
        mtime: int,
        packings: Sequence[Packing],
        wanted: str,
        parts: Mapping[str, Part],
    ) -> None:
        """`packings`: of all members, by number; empty if the tar is compressed as a whole. `wanted`: the part that
        this archive needs. The other parts are for other archives of the same members: while the ranges of one part
        are read, theirs can be measured, too."""
        self.members = members
        self.mtime = mtime
        self.packings = packings
        self.wanted = wanted
        self.parts = parts
        # Numbers of the members whose contents are judged and measured by themselves.
        self.large = array("I", (number for number, packing in enumerate(packings) if packing is Packing.LARGE))

    @functools.cached_property
    def tar(self) -> PieceList:
        """The tar of the members, not compressed."""
        return lay_out_tar(self.members, self.mtime)

    @functools.cached_property
    def stretches(self) -> Stretches:
        """The stretches of the tar, if the members are packed one by one."""
        return Stretches(self.members, self.mtime, self.packings)


class Deflated(NamedTuple):
    """The measurement of a large file that is worth compressing (`store.formats.write.deflate`)."""

    measured: Measured
    effort: int


class Results(NamedTuple):
    """The measurements that a plan asks for."""

    chunks: Measured  # of the wanted part
    effort: int  # of the wanted part; 0 if there is only one
    large: Mapping[int, Deflated]  # by the numbers of members; large files that are missing are stored


def read_parts(plan: Plan, parts: Sequence[str]) -> Iterator[tuple[str, list[memoryview]]]:
    """Yield the contents of the next chunks of some parts, in order within each part. Read each byte once.

    Raises:
        SourceChangedError, StoreUnreadableError: while reading.
    """
    pieces = plan.parts[parts[0]].pieces if len(parts) == 1 else None
    if pieces is None:
        stream = TarStream(plan.members, plan.mtime, plan.tar.length)
        return read_ranges(stream, {part: plan.parts[part].ranges(plan) for part in parts})
    return ((parts[0], [memoryview(read_bytes(piece, 0, piece.length))]) for piece in pieces(plan))


def read_ranges(tar: Piece, ranges: Mapping[str, Iterable[Range]]) -> Iterator[tuple[str, list[memoryview]]]:
    """Do what `read_parts` does, from the tar, which is read once from start to end."""
    following = {part: iter(each) for part, each in ranges.items()}
    next_ones = {part: first for part, each in following.items() if (first := next(each, None)) is not None}
    begin, window = 0, memoryview(b"")
    while next_ones:
        begin, window = _move(tar, begin, window, next_ones.values())
        end = begin + len(window)
        for part, first in list(next_ones.items()):
            found: list[memoryview] = []
            each: Range | None = first
            while each is not None and each.stop <= end:
                found.append(window[each.start - begin : each.stop - begin])
                each = next(following[part], None)
            if each is None:
                del next_ones[part]
            else:
                next_ones[part] = each
            if found:
                yield part, found


def _move(tar: Piece, begin: int, window: memoryview, wanted: Collection[Range]) -> tuple[int, memoryview]:
    """Return a new window of the tar, and its start. It holds the first of the wanted ranges and those that overlap or
    touch it. `begin`, `window`: the window before it, whose bytes are not read again."""
    first, end = min(wanted)
    for start, stop in sorted(wanted):
        if start <= end:
            end = max(end, stop)
    known = window[max(0, first - begin) :]
    moved = memoryview(bytearray(end - first))
    moved[: len(known)] = known
    tar.read_into([moved[len(known) :]], first + len(known))
    return first, moved


def whole_tar(members: Sequence[Member], mtime: int, name: str, codec: Codec) -> Plan:
    """Return the plan of an archive that is one compressed tar."""
    parts = {name: Part(lambda _effort: codec, lambda plan: grid(0, plan.tar.length, codec.chunk))}
    return Plan(members, mtime, (), name, parts)


def grid(start: int, stop: int, step: int) -> Iterator[Range]:
    """Cut a range into ranges of `step` bytes; the last one may be shorter."""
    for at in range(start, stop, step):
        yield Range(at, min(at + step, stop))
