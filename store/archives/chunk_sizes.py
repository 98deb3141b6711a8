"""Sizes of compressed chunks. They are measured once, before an archive's size is known, and kept in the index.

A format's plan (`store.formats.write.plan`) says what to measure. A large file's sizes are keyed by its identity, and
shared by formats, models and mounts. The sizes of an archive's other parts are keyed by the model's fingerprint. All
are keyed by the codec, too: for another ISA-L they are measured anew.

Threading: all methods may be called from any thread. Measuring runs on all cores.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from bentofs.store.archives.crc32_cache import MeasuredFile
from bentofs.store.archives.growing import Judged, Known
from bentofs.store.archives.index import ChunkSizes, SizesRow
from bentofs.store.archives.measuring import Group, Progress, measure_chunks
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Measured, Name, Unit
from bentofs.store.formats.write.deflate import CHUNK, END, MOST_EFFORT, Judgement, chunk_codec, codec_name, judge
from bentofs.store.formats.write.plan import Deflated, Part, Plan, Results, read_parts
from bentofs.store.storage.timestamps import is_settled
from bentofs.store.util.memory_budget import MemoryBudget

log = logging.getLogger(__name__)

_MAX_SIZE = 1 << 22  # bytes: no compressed chunk is larger; an index that says so is wrong
_KEEP_EVERY = 64  # large files, after which their sizes are written


class ModelKey(NamedTuple):
    """The model that a plan is measured for, as far as sizes depend on it."""

    fingerprint: str  # of its content
    how: str  # names all else that sizes depend on, beside the codec
    newest_ctime_ns: int  # of its files
    shown: str  # to a user


class SizesKept(Protocol):
    """A place that keeps sizes, such as `store.archives.index.Index`."""

    def chunk_sizes(self, content: str, codec: str) -> ChunkSizes | None: ...

    def keep_chunk_sizes(self, rows: Iterable[SizesRow]) -> None: ...

    def forget_chunk_sizes(self, content: str, codec: str) -> None: ...

    def forget_archive_lengths(self) -> None: ...


class NotMeasuredError(Exception):
    """Sizes are unknown, and measuring was not allowed."""


class Sizes:
    """The measured sizes of one process."""

    def __init__(
        self,
        index: SizesKept,
        maker: ChunkMaker | None = None,
        is_settled: Callable[[int, int], bool] = is_settled,
        *,
        budget: MemoryBudget | None = None,
        has_reader: bool = True,
    ) -> None:
        """`maker`: the maker of another `Sizes`, which closes it; None to make a new one. `is_settled`: decides like
        the function `is_settled` whether a file's sizes are kept. `budget`: None to make a new one. `has_reader`: True
        if a reader waits for the measured chunks."""
        self._index = index
        self._is_settled = is_settled
        self._has_reader = has_reader
        self.maker = maker or ChunkMaker(self._on_wrong, budget)
        self.revision = 0  # raised when a size turned out wrong: archives must be laid out anew

    def of_files(
        self,
        files: Sequence[MeasuredFile],
        *,
        forced: bool,
        progress: Progress | None = None,
        only_known: bool = False,
    ) -> list[Deflated | None]:
        """Return the measurement of each of these large files; None for a file that is not worth compressing. Measure
        what is not known.

        `forced`: compress all, regardless of samples; `only_known`: measure nothing.

        Raises:
            NotMeasuredError: `only_known`, and sizes are unknown.
            SourceChangedError, StoreUnreadableError: while reading a file.
            CancelledError: the process ends.
        """
        return self._of_files(
            files, forced=forced, progress=progress, only_known=only_known, has_reader=self._has_reader
        )

    def _of_files(
        self,
        files: Sequence[MeasuredFile],
        *,
        forced: bool,
        progress: Progress | None,
        only_known: bool,
        has_reader: bool,
    ) -> list[Deflated | None]:
        started_ns = time.time_ns()
        known = {number: self._known(file) for number, file in enumerate(files)}
        found = {number: what for number, what in known.items() if what is not None}
        unjudged = [number for number in known if number not in found]
        if only_known and (unjudged or not all(what.sizes for what in found.values() if forced or what.worth_it)):
            raise NotMeasuredError
        # One by one: samples are so short that threads would wait for Python's lock longer than they work.
        found |= {number: ChunkSizes(*_judge(files[number])) for number in unjudged}
        wanted = [number for number in known if forced or found[number].worth_it]
        unmeasured = [number for number in wanted if not found[number].sizes]
        unwritten = {number for number in unjudged if number not in unmeasured}
        try:
            groups = [Group(_name(files[number]), chunk_codec(found[number].effort)) for number in unmeasured]
            units = ((of, [unit]) for of, number in enumerate(unmeasured) for unit in _units(files[number]))
            sizes = array("I")
            for of, more in measure_chunks(self.maker, groups, units, progress, has_reader=has_reader):
                number = unmeasured[of]
                sizes.extend(more)
                if len(sizes) == _count(files[number]):
                    found[number] = found[number]._replace(sizes=sizes)
                    unwritten.add(number)
                    sizes = array("I")
                    if len(unwritten) >= _KEEP_EVERY:
                        self._keep(files, found, unwritten, started_ns)
        finally:
            self._keep(files, found, unwritten, started_ns)
        deflated: list[Deflated | None] = [None] * len(files)
        for number in wanted:
            what, file = found[number], files[number]
            if sum(what.sizes) + len(END) < file.length:
                deflated[number] = Deflated(Measured(_name(file), what.sizes, file.source), what.effort)
        return deflated

    def measure(
        self,
        plan: Plan,
        subject: ModelKey,
        *,
        also: Collection[str] = (),
        forced: bool,
        progress: Progress | None = None,
        only_known: bool = False,
        has_reader: bool = True,
        all_have_readers: bool = False,
    ) -> Results:
        """Return the results of a plan. Measure what is not known; it raises the same errors as `of_files`.

        `also`: parts to measure while the wanted one is read. `all_have_readers`: readers wait for their chunks, too.
        `forced`: compress all large files, regardless of
        samples. `only_known`: measure nothing. `has_reader`: False if no reader waits for the measured chunks."""
        files = [_measured_file(plan.members[number].content) for number in plan.large]
        has_reader = has_reader and self._has_reader
        found = self._of_files(files, forced=forced, progress=progress, only_known=only_known, has_reader=has_reader)
        chunks, effort = self._of_parts(
            plan, subject, also, progress, only_known=only_known, has_reader=has_reader, all_wanted=all_have_readers
        )
        return Results(chunks, effort, {number: what for number, what in zip(plan.large, found, strict=True) if what})

    def _of_parts(
        self,
        plan: Plan,
        subject: ModelKey,
        also: Collection[str],
        progress: Progress | None,
        *,
        only_known: bool,
        has_reader: bool,
        all_wanted: bool,
    ) -> tuple[Measured, int]:
        """Return the measurement of the wanted part, and its effort. `all_wanted`: readers wait for all parts."""
        parts, wanted = plan.parts, plan.wanted
        names = {part: self._part_name(plan, part, subject) for part in parts}
        found = self._known_part(names[wanted], parts[wanted])
        if found is None and only_known:
            raise NotMeasuredError
        if found is None:
            started_ns = time.time_ns()
            is_kept = self._is_settled(subject.newest_ctime_ns, started_ns)
            others = [part for part in parts if part in also and part != wanted] if is_kept else []
            unknown = [wanted, *(part for part in others if self._known_part(names[part], parts[part]) is None)]
            efforts = [_effort(plan, parts[part]) for part in unknown]
            sizes = [array("I") for _ in unknown]
            groups = [
                Group(names[part], parts[part].codec(effort), is_wanted=all_wanted or part == wanted)
                for part, effort in zip(unknown, efforts, strict=True)
            ]
            numbered = ((unknown.index(part), contents) for part, contents in read_parts(plan, unknown))
            for of, more in measure_chunks(self.maker, groups, numbered, progress, has_reader=has_reader):
                sizes[of].extend(more)
            measured = [ChunkSizes(effort, True, each) for effort, each in zip(efforts, sizes, strict=True)]
            if is_kept:
                self._index.keep_chunk_sizes((*names[part], each) for part, each in zip(unknown, measured, strict=True))
            found = measured[0]
        return Measured(names[wanted], found.sizes, subject.shown), found.effort

    def judge(self, plan: Plan, subject: ModelKey) -> Known:
        """Return the facts about a plan that samples tell. It raises the same errors as `of_files`, save the first."""
        started_ns = time.time_ns()
        files = [_measured_file(plan.members[number].content) for number in plan.large]
        found = {number: self._known(file) or ChunkSizes(*_judge(file)) for number, file in enumerate(files)}
        self._keep(files, found, {number for number, how in found.items() if not how.worth_it}, started_ns)
        for number, how in found.items():
            if how.sizes and sum(how.sizes) + len(END) >= files[number].length:  # measured, against its sample
                found[number] = how._replace(worth_it=False)
        large = {plan.large[number]: Judged(file, _name(file), found[number]) for number, file in enumerate(files)}
        return Known(
            self._part_name(plan, plan.wanted, subject), _effort(plan, plan.parts[plan.wanted]), large, subject.shown
        )

    def keep_grown(self, known: Known, results: Results, subject: ModelKey, started_ns: int) -> None:
        """Keep the measurements of an archive that was given while it was measured, since `started_ns` (wall clock)."""
        files = [known.large[number].file for number in results.large]
        found = {
            place: ChunkSizes(deflated.effort, True, deflated.measured.sizes)
            for place, deflated in enumerate(results.large.values())
        }
        self._keep(files, found, set(found), started_ns)
        if self._is_settled(subject.newest_ctime_ns, started_ns):
            self._index.keep_chunk_sizes([(*known.part, ChunkSizes(known.effort, True, results.chunks.sizes))])

    def close(self) -> None:
        """Cancel measuring and compression."""
        self.maker.close()

    def distrust_lengths(self) -> None:
        """Drop the lengths of archives in the index: one differed from the archive. Archives are laid out anew."""
        log.info("the lengths of archives were removed from the index: one was wrong")
        self._index.forget_archive_lengths()
        self.revision += 1

    def _on_wrong(self, name: Name) -> None:
        log.info("wrong sizes of %s (%s) were removed from the index", *name)
        self._index.forget_chunk_sizes(*name)
        self.maker.cache.forget(name)
        self.revision += 1

    def _part_name(self, plan: Plan, part: str, subject: ModelKey) -> Name:
        return f"{subject.fingerprint}/{part}/{subject.how}", plan.parts[part].codec(1).name

    def _known_part(self, name: Name, part: Part) -> ChunkSizes | None:
        kept = self._index.chunk_sizes(*name)
        if kept is None or not _plausible(kept.sizes) or kept.effort not in _efforts(part):
            return None
        return kept

    def _known(self, file: MeasuredFile) -> ChunkSizes | None:
        kept = self._index.chunk_sizes(*_name(file))
        if kept is None or not 1 <= kept.effort <= MOST_EFFORT:
            return None
        if kept.sizes and (len(kept.sizes) != _count(file) or not _plausible(kept.sizes)):
            return None
        return kept

    def _keep(
        self, files: Sequence[MeasuredFile], found: dict[int, ChunkSizes], numbers: set[int], started_ns: int
    ) -> None:
        """Write the sizes of some files. Skip files so young that a change might not show in their identity."""
        rows = [
            (*_name(files[number]), found[number])
            for number in numbers
            if self._is_settled(files[number].identity.ctime_ns, started_ns)
        ]
        numbers.clear()
        if rows:
            self._index.keep_chunk_sizes(rows)


def _efforts(part: Part) -> Collection[int]:
    return range(1, MOST_EFFORT + 1) if part.judge is not None else (0,)


def _effort(plan: Plan, part: Part) -> int:
    return part.judge(plan) if part.judge is not None else 0


def _measured_file(content: Piece | None) -> MeasuredFile:
    if not isinstance(content, MeasuredFile):
        raise TypeError("a large file can be measured only if it knows its identity")
    return content


def _units(file: MeasuredFile) -> Iterator[Unit]:
    return chunk_codec(MOST_EFFORT).units(file, 0, file.length)  # the same at any effort


def _count(file: MeasuredFile) -> int:
    """Return the number of a large file's chunks."""
    return -(-file.length // CHUNK)


def _judge(file: MeasuredFile) -> Judgement:
    return judge(file.read_sample, file.length)


def _name(file: MeasuredFile) -> Name:
    return ":".join(map(str, file.identity)), codec_name()


def _plausible(sizes: array[int]) -> bool:
    return all(0 < size <= _MAX_SIZE for size in sizes)
