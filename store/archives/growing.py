"""Growing: a compressed archive that is given while it is measured. Each chunk is compressed once.

The length is known at the end. So only a target that needs no length in advance can take one, and only one whose
start can wait: in a `.zip`, a file's header has its compressed length.

Threading: one thread takes the blocks; other threads read and compress.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NamedTuple, cast

from bentofs.store.archives.crc32_cache import MeasuredFile
from bentofs.store.archives.index import ChunkSizes
from bentofs.store.archives.measuring import SHORT, in_parallel
from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.gap import Block, CannotGrowError, Gap
from bentofs.store.formats.pieces import Piece, PieceList, read_bytes
from bentofs.store.formats.write.chunk_maker import CORES, ChunkMaker
from bentofs.store.formats.write.chunks import Measured, Name, Unit
from bentofs.store.formats.write.deflate import CHUNK, END, chunk_codec
from bentofs.store.formats.write.plan import Deflated, Plan, Results
from bentofs.store.formats.write.small_files import FILES
from bentofs.store.formats.write.steps import Begin, Chunk, End, Step
from bentofs.store.formats.write.zip import HeaderMaker

_READ = 1 << 20  # bytes of stored content that are given at a time
_WINDOW = 4 * CORES  # steps that are under way, or done and not yet given


class Judged(NamedTuple):
    """A large file, and the verdict of its sample."""

    file: MeasuredFile  # computes its CRC-32 from the bytes that it gives, so all must use this one
    name: Name
    how: ChunkSizes  # without sizes


class Known(NamedTuple):
    """The facts about a plan that samples tell, without measuring."""

    part: Name  # of the wanted part
    effort: int  # for it
    large: Mapping[int, Judged]  # by number of the member
    shown: str  # the model, to a user

    @property
    def compressible(self) -> int:
        """Return the bytes of large files that are worth compressing."""
        return sum(judged.file.length for judged in self.large.values() if judged.how.worth_it)


class Growing:
    """An archive of one generation of a model."""

    def __init__(
        self,
        plan: Plan,
        known: Known,
        steps: Callable[[Plan, Callable[[int], bool]], Iterator[Step]],
        lay_out: Callable[[Plan, Results, ChunkMaker], PieceList],
        maker: ChunkMaker,
        keep: Callable[[Results, PieceList], None],
    ) -> None:
        """`steps`, `lay_out`: of its format. `keep`: called at the end with the measurements and the archive."""
        self._plan = plan
        self._known = known
        self._steps = steps
        self._lay_out = lay_out
        self._maker = maker
        self._keep = keep
        self._is_zip = plan.wanted == FILES
        self._part_codec = plan.parts[plan.wanted].codec(known.effort)
        self._part_sizes = array("I")
        self._large_sizes = {number: array("I") for number, judged in known.large.items() if judged.how.worth_it}
        self._archive: PieceList | None = None

    @property
    def most(self) -> int:
        """Return a length in bytes that the archive does not exceed."""
        return self._plan.tar.length * 2

    @property
    def archive(self) -> PieceList:
        """Return the archive. Only after all blocks were taken."""
        if self._archive is None:
            raise AssertionError("the archive is not measured yet")
        return self._archive

    def blocks(self) -> Generator[Block, None, None]:
        """Yield the archive from start to end. A gap is filled soon: before the next one comes, or the end.

        Raises:
            CannotGrowError: a file is not worth compressing, against its sample. All blocks are to be dropped.
            SourceChangedError, StoreUnreadableError, CancelledError: while reading.
        """
        headers = HeaderMaker(self._plan.members, self._plan.mtime)
        gap, packed, crc, length = Gap(0), 0, 0, 0
        for task, made in in_parallel(self._work, self._tasks(), _WINDOW):
            step = task.step
            if isinstance(step, Begin):
                gap, packed, crc = Gap(headers.length(step.member)), 0, 0
                length += gap.length
                yield gap
            elif isinstance(step, End):
                if step.member in self._known.large:
                    crc = self._known.large[step.member].file.crc32()
                gap.content = headers.header(step.member, packed, crc)
            elif isinstance(step, Chunk):
                content = self._measured(step, made)
                if isinstance(step.content, memoryview) and self._is_zip:
                    crc = crc32(step.content)
                packed += len(content)
                length += len(content)
                yield content
            else:
                packed += step.length
                length += step.length
                yield from _blocks(step, 0)
                if isinstance(step, MeasuredFile) and self._is_zip:
                    crc = step.crc32()
        results = self._results()
        self._archive = archive = self._lay_out(self._plan, results, self._maker)
        yield from _blocks(archive, length)
        self._keep(results, archive)

    def _tasks(self) -> Iterator[_Task]:
        number = 0  # of the next chunk of the wanted part
        for step in self._steps(self._plan, self._large_sizes.__contains__):
            yield _Task(step, number)
            number += isinstance(step, Chunk) and step.member is None

    def _work(self, task: _Task) -> tuple[_Task, bytes]:
        step = task.step
        if not isinstance(step, Chunk):
            return task, b""
        if isinstance(step.content, Unit) and step.member is not None:
            codec = chunk_codec(self._known.large[step.member].how.effort)
            content, start, stop = step.content
            return task, self._maker.encode(codec, content, start, stop, start // codec.chunk)
        return task, self._maker.compress(self._part_codec, cast("memoryview", step.content), task.number)

    def _measured(self, step: Chunk, made: bytes) -> bytes | memoryview:
        """Note a chunk's length. Return the bytes that the archive holds for it."""
        if step.member is not None:
            self._note_large(step.member, len(made))
            return made
        self._part_sizes.append(len(made))
        content = cast("memoryview", step.content)
        return content if self._is_zip and len(made) >= len(content) else made

    def _note_large(self, member: int, length: int) -> None:
        """Note the length of a large file's next chunk."""
        file, sizes = self._known.large[member].file, self._large_sizes[member]
        sizes.append(length)
        if len(sizes) * CHUNK >= file.length and sum(sizes) + len(END) >= file.length:
            raise CannotGrowError(f"{file.source} is not worth compressing, against its sample")

    def _results(self) -> Results:
        large = {}
        for number, sizes in self._large_sizes.items():
            file, name, how = self._known.large[number]
            large[number] = Deflated(Measured(name, sizes, file.source), how.effort)
        return Results(Measured(self._known.part, self._part_sizes, self._known.shown), self._known.effort, large)


class _Task(NamedTuple):
    """A step on its way."""

    step: Step
    number: int  # of the chunk, in the wanted part

    @property
    def is_short(self) -> bool:
        """True if handing it to another thread would take longer than the step itself."""
        content = self.step.content if isinstance(self.step, Chunk) else None
        return content is None or (isinstance(content, memoryview) and len(content) < SHORT)


def _blocks(piece: Piece, start: int) -> Iterator[bytes]:
    for at in range(start, piece.length, _READ):
        yield read_bytes(piece, at, min(_READ, piece.length - at))
