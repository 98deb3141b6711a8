"""Steps: a compressed `.tar.gz` or `.zip` in the order of its bytes, before any length in it is known.

An archive can be written by its steps while its chunks are measured, so that each is compressed once. The bytes are
those of the laid-out archive. Its end, behind the last step, needs all measurements: it is read from there.

Threading: one thread takes the steps; any threads compress their chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bentofs.store.formats.pieces import Literal, Piece, PieceList, Slice
from bentofs.store.formats.write.chunks import Unit
from bentofs.store.formats.write.deflate import END, chunk_codec
from bentofs.store.formats.write.gzip import HEADER, append_stored
from bentofs.store.formats.write.members import Packing
from bentofs.store.formats.write.plan import Plan, grid, read_parts


class Chunk(NamedTuple):
    """A chunk that is to be compressed."""

    content: Unit | memoryview  # of a large file, or of the wanted part: in memory
    member: int | None  # number of the large file


class Begin(NamedTuple):
    """The header of a member, whose content comes next. It tells the content's length and CRC-32."""

    member: int


class End(NamedTuple):
    """The end of a member's content."""

    member: int


Step = Chunk | Piece | Begin | End  # a Piece is stored as it is
IsDeflated = Callable[[int], bool]  # of the number of a member: true for a large file that is compressed


def steps_of_tar_gz(plan: Plan, is_deflated: IsDeflated) -> Iterator[Step]:
    """Yield the steps of a `.tar.gz`, whose plan wants the runs of its tar.

    Raises:
        SourceChangedError, StoreUnreadableError: while reading small files.
    """
    yield Literal(HEADER)
    contents = _contents(plan)
    run = plan.parts[plan.wanted].codec(1).chunk
    for stretch in plan.stretches:
        if stretch.packing is Packing.SMALL:
            for _ in grid(stretch.start, stretch.stop, run):
                yield Chunk(next(contents), None)
        elif stretch.member is not None and is_deflated(stretch.member):
            yield from _chunks(plan, stretch.member)
        else:
            pieces = PieceList()
            append_stored(pieces, Slice(plan.tar, stretch.start, stretch.stop - stretch.start))
            yield pieces


def steps_of_zip(plan: Plan, is_deflated: IsDeflated) -> Iterator[Step]:
    """Yield the steps of a `.zip`, whose plan wants its small files. Raises the same errors as `steps_of_tar_gz`."""
    contents = _contents(plan)
    for number, member in enumerate(plan.members):
        yield Begin(number)
        if member.content is not None:
            if is_deflated(number):
                yield from _chunks(plan, number)
                yield Literal(END)
            elif plan.packings[number] is Packing.SMALL:
                yield Chunk(next(contents), None)
            else:
                yield member.content
        yield End(number)


def _contents(plan: Plan) -> Iterator[memoryview]:
    return (content for _, contents in read_parts(plan, [plan.wanted]) for content in contents)


def _chunks(plan: Plan, number: int) -> Iterator[Step]:
    content = plan.members[number].content
    if content is not None:
        for unit in chunk_codec(1).units(content, 0, content.length):  # the same at any effort
            yield Chunk(unit, number)
