"""The deflate streams of a compressed zip and of a compressed tar.gz, member by member and stretch by stretch.

Of each archive only lengths are kept, in columns. The chunks of a segment are made when it is laid out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import cast

from bentofs.store.formats.pieces import Literal, Piece, PieceList, Slice
from bentofs.store.formats.write.chunks import Chunks, Maker, check_measured, put_in_order
from bentofs.store.formats.write.deflate import END, chunk_codec, run_codec, small_codec
from bentofs.store.formats.write.gzip import append_stored, stored_length
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.plan import Deflated, Plan, Results
from bentofs.store.formats.write.segments import lay_out_in_segments
from bentofs.store.formats.write.stretches import Stretch, Stretches


class ZipPacker:
    """Deflates the members of a zip (`store.formats.write.zip.Packer`)."""

    def __init__(self, maker: Maker, packings: Sequence[Packing], results: Results) -> None:
        """`packings`: of all members, by number. `results`: with the streams of all small members, one each."""
        self._maker = maker
        self._packings = packings
        self._measured, effort, self._large = results
        self._codec = small_codec(effort)
        self._firsts = array("I", [0])  # number of small members before each member

    def add(self, size: int) -> int:
        number, first = len(self._firsts) - 1, self._firsts[-1]
        self._firsts.append(first)
        if size and self._packings[number] is Packing.SMALL:
            self._firsts[-1] += 1
            check_measured(self._maker, self._measured, first + 1)
            return min(self._measured.sizes[first], size)
        deflated = self._large.get(number)
        return size if deflated is None else sum(deflated.measured.sizes) + len(END)

    def pieces(self, numbers: range, members: Sequence[Member]) -> Iterator[Sequence[Piece]]:
        in_order: list[Chunks] = []
        for number, member in zip(numbers, members, strict=True):
            deflated, first = self._large.get(number), self._firsts[number]
            if member.content is None:
                yield ()
            elif deflated is not None:
                in_order.append(_chunks(self._maker, deflated, member.content))
                yield in_order[-1], Literal(END)
            elif self._packings[number] is Packing.SMALL and self._measured.sizes[first] < member.size:
                in_order.append(Chunks(self._maker, self._codec, member.content, self._measured, first=first))
                yield (in_order[-1],)
            else:
                yield (member.content,)
        put_in_order(in_order)


def lay_out_deflate(plan: Plan, results: Results, maker: Maker) -> PieceList:
    """Lay out the deflate stream of a tar, without a last block. `results`: with the chunks of all its runs."""
    stream = _Deflate(plan.stretches, plan.members, plan.tar, results, maker)
    return lay_out_in_segments(len(plan.stretches), stream.lay_out, stream.length)


class _Deflate:
    """A deflate stream. Headers and small files are compressed in runs, large files in the same chunks as in a zip."""

    def __init__(
        self, stretches: Stretches, members: Sequence[Member], tar: Piece, results: Results, maker: Maker
    ) -> None:
        self._stretches = stretches
        self._members = members
        self._tar = tar
        self._runs, effort, self._large = results
        self._codec = run_codec(effort)
        self._maker = maker
        self._starts = array("Q", [0])  # of the stretches, in the stream
        self._firsts = array("I", [0])  # number of runs before each stretch
        for stretch in stretches:
            self._firsts.append(self._firsts[-1])
            self._starts.append(self._starts[-1] + self._add(stretch))

    def length(self, numbers: range) -> int:
        """Return the length of what `lay_out` lays out."""
        return self._starts[numbers.stop] - self._starts[numbers.start]

    def lay_out(self, numbers: range) -> PieceList:
        """Lay out the stretches with these numbers."""
        pieces = PieceList()
        in_order: list[Chunks] = []
        first = self._firsts[numbers.start]
        for stretch in self._stretches[numbers.start : numbers.stop]:
            start, stop, packing, member = stretch
            deflated = self._deflated(stretch)
            if member is not None and deflated is not None:
                chunks = _chunks(self._maker, deflated, cast("Piece", self._members[member].content))
            elif packing is Packing.SMALL:
                chunks = Chunks(self._maker, self._codec, self._tar, self._runs, start, stop, first)
                first += chunks.count
            else:
                append_stored(pieces, Slice(self._tar, start, stop - start))
                continue
            in_order.append(chunks)
            pieces.append(chunks)
        put_in_order(in_order)
        return pieces

    def _add(self, stretch: Stretch) -> int:
        """Return the length of the next stretch in the stream."""
        length = stretch.stop - stretch.start
        deflated = self._deflated(stretch)
        if deflated is not None:
            return sum(deflated.measured.sizes)
        if stretch.packing is not Packing.SMALL:
            return stored_length(length)
        first = self._firsts[-1]
        self._firsts[-1] += self._codec.count(length)
        check_measured(self._maker, self._runs, self._firsts[-1])
        return sum(self._runs.sizes[first : self._firsts[-1]])

    def _deflated(self, stretch: Stretch) -> Deflated | None:
        return None if stretch.member is None else self._large.get(stretch.member)


def _chunks(maker: Maker, how: Deflated, content: Piece) -> Chunks:
    return Chunks(maker, chunk_codec(how.effort), content, how.measured)
