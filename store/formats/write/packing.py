"""The deflate streams of a compressed zip and of a compressed tar.gz, member by member and stretch by stretch.

Of each archive only lengths are kept, in columns. The chunks of a segment are made when it is laid out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from bentofs.store.formats.pieces import Literal, Piece, PieceList, Slice
from bentofs.store.formats.write.chunks import Chunks, Maker, Measured, check_measured, put_in_order
from bentofs.store.formats.write.deflate import END, chunk_codec, run_codec, small_codec
from bentofs.store.formats.write.gzip import append_stored, stored_length
from bentofs.store.formats.write.members import Deflated, Member, Packing
from bentofs.store.formats.write.segments import lay_out_in_segments
from bentofs.store.formats.write.stretches import Stretch, Stretches


class ZipPacker:
    """Deflates the members of a zip (`store.formats.write.zip.Packer`)."""

    def __init__(self, maker: Maker, measured: Measured) -> None:
        """`measured`: the streams of all small members, one each."""
        self._maker = maker
        self._measured = measured
        self._firsts = array("I", [0])  # number of small members before each member

    def add(self, member: Member) -> int:
        first = self._firsts[-1]
        self._firsts.append(first)
        if member.content is not None and member.packing is Packing.SMALL:
            self._firsts[-1] += 1
            check_measured(self._maker, self._measured, first + 1)
            return min(self._measured.sizes[first], member.size)
        if member.content is not None and isinstance(member.packing, Deflated):
            return sum(member.packing.measured.sizes) + len(END)
        return member.size

    def pieces(self, numbers: range, members: Sequence[Member]) -> Iterator[Sequence[Piece]]:
        in_order: list[Chunks] = []
        for number, member in zip(numbers, members, strict=True):
            if member.content is None:
                yield ()
            elif isinstance(member.packing, Deflated):
                in_order.append(_chunks(self._maker, member.packing, member.content))
                yield in_order[-1], Literal(END)
            elif member.packing is Packing.SMALL and self._measured.sizes[self._firsts[number]] < member.size:
                first = self._firsts[number]
                in_order.append(Chunks(self._maker, small_codec(), member.content, self._measured, first=first))
                yield (in_order[-1],)
            else:
                yield (member.content,)
        put_in_order(in_order)


def lay_out_deflate(stretches: Stretches, tar: Piece, maker: Maker, runs: Measured) -> PieceList:
    """Lay out the deflate stream of a tar, without a last block. `runs`: the chunks of all its small files."""
    stream = _Deflate(stretches, tar, maker, runs)
    return lay_out_in_segments(len(stretches), stream.lay_out, stream.length)


class _Deflate:
    """A deflate stream. Headers and small files are compressed in runs, large files in the same chunks as in a zip."""

    def __init__(self, stretches: Stretches, tar: Piece, maker: Maker, runs: Measured) -> None:
        self._stretches = stretches
        self._tar = tar
        self._maker = maker
        self._runs = runs
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
        for start, stop, how, member in self._stretches[numbers.start : numbers.stop]:
            if how is Packing.STORED:
                append_stored(pieces, Slice(self._tar, start, stop - start))
                continue
            if isinstance(how, Deflated) and member is not None and member.content is not None:
                chunks = _chunks(self._maker, how, member.content)
            else:
                chunks = Chunks(self._maker, run_codec(), self._tar, self._runs, start, stop, first)
                first += chunks.count
            in_order.append(chunks)
            pieces.append(chunks)
        put_in_order(in_order)
        return pieces

    def _add(self, stretch: Stretch) -> int:
        """Return the length of the next stretch in the stream."""
        length = stretch.stop - stretch.start
        if stretch.how is Packing.STORED:
            return stored_length(length)
        if isinstance(stretch.how, Deflated):
            return sum(stretch.how.measured.sizes)
        first = self._firsts[-1]
        self._firsts[-1] += run_codec().count(length)
        check_measured(self._maker, self._runs, self._firsts[-1])
        return sum(self._runs.sizes[first : self._firsts[-1]])


def _chunks(maker: Maker, how: Deflated, content: Piece) -> Chunks:
    return Chunks(maker, chunk_codec(how.effort), content, how.measured)
