"""Sizes: what must be learnt of compressed chunks once, before an archive's size is known, and is kept in the index.

A large file's are keyed by its identity and shared by formats, models and mounts; those of an archive's other parts by
the model's fingerprint. All are keyed by the codec, too: what another ISA-L made is measured anew.

Threading: all methods may be called from any thread. Measuring runs on all cores.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple, Protocol, TypeVar

from store.archive.chunk_maker import CORES, ChunkMaker
from store.archive.chunks import Codec, Measured, Name
from store.archive.deflate import CHUNK, END, MOST_EFFORT, Verdict, chunk_codec, codec_name, judge, sample_ranges
from store.archive.formats import Unit
from store.archive.members import Deflated, Packing
from store.archive.pieces import read_bytes
from store.index import ChunkSizes, SizesRow
from store.measure import MeasuredFile
from store.model import Model
from store.storage.stamp import is_settled

log = logging.getLogger(__name__)

_WINDOW = 2 * CORES  # tasks that are under way, or done and not yet taken
_TASK = 1 << 20  # bytes of content in a task,
_TASK_UNITS = 64  # and small files
_SHORT = 16 << 10  # bytes: threads that compress less at a time wait for Python's lock longer than they work
_MAX_SIZE = 1 << 22  # no chunk comes out larger; an index that says so is wrong
_KEEP_EVERY = 64  # large files, after which what was measured is written

_R = TypeVar("_R")
Progress = Callable[[int], None]  # told how many more bytes of content were measured


class _Group(NamedTuple):
    """Content that is measured together."""

    name: Name
    codec: Codec
    units: Iterable[Unit]
    is_small: bool  # many small files: whoever wants them measured reads them, one after another


class _Task(NamedTuple):
    """Consecutive units of one group."""

    group: int
    name: Name
    codec: Codec
    first: int
    units: list[Unit]
    contents: list[memoryview]  # of the units, if they were read already

    @property
    def is_short(self) -> bool:
        """Whether to hand it to another thread would take longer than it takes."""
        return len(self.units) * _SHORT > sum(unit.stop - unit.start for unit in self.units)


class SizesKept(Protocol):
    """Where sizes are kept; as `store.index.Index`."""

    def chunk_sizes(self, content: str, codec: str) -> ChunkSizes | None: ...

    def keep_chunk_sizes(self, rows: Iterable[SizesRow]) -> None: ...

    def forget_chunk_sizes(self, content: str, codec: str) -> None: ...


class Sizes:
    """The measured sizes of one process."""

    def __init__(
        self,
        index: SizesKept,
        maker: ChunkMaker | None = None,
        is_settled: Callable[[int, int], bool] = is_settled,
    ) -> None:
        """`maker`: that of other sizes, to be closed by them; `is_settled`: as the function, whether what was measured
        of a file is kept."""
        self._index = index
        self._is_settled = is_settled
        self.maker = maker or ChunkMaker(self._on_wrong)
        self.revision = 0  # raised when a size turned out wrong: archives must be laid out anew

    def of_files(
        self, files: Sequence[MeasuredFile], *, forced: bool, progress: Progress | None = None
    ) -> list[Packing | Deflated]:
        """How each of some large files goes into a compressed archive; measured now unless it is known.

        `forced`: whatever a sample says.

        Raises:
            SourceChangedError, StoreUnreadableError: as reading does.
            CancelledError: the process ends.
        """
        started_ns = time.time_ns()
        known = {number: self._known(file) for number, file in enumerate(files)}
        found = {number: what for number, what in known.items() if what is not None}
        unjudged = [number for number in known if number not in found]
        # One by one: samples are so short that threads would wait for Python's lock longer than they work.
        found |= {number: ChunkSizes(*_judge(files[number])) for number in unjudged}
        wanted = [number for number in known if forced or found[number].worth_it]
        unmeasured = [number for number in wanted if not found[number].sizes]
        unwritten = {number for number in unjudged if number not in unmeasured}
        try:
            groups = [self._group(files[number], found[number].effort) for number in unmeasured]
            for number, sizes in zip(unmeasured, self._measure(groups, progress), strict=True):
                found[number] = found[number]._replace(sizes=sizes)
                unwritten.add(number)
                if len(unwritten) >= _KEEP_EVERY:
                    self._keep(files, found, unwritten, started_ns)
        finally:
            self._keep(files, found, unwritten, started_ns)
        packings: list[Packing | Deflated] = [Packing.STORED] * len(files)
        for number in wanted:
            what, file = found[number], files[number]
            if sum(what.sizes) + len(END) < file.length:
                packings[number] = Deflated(Measured(_name(file), what.sizes, file.source), what.effort)
        return packings

    def of_part(
        self, model: Model, part: str, codec: Codec, units: Iterable[Unit], progress: Progress | None = None
    ) -> Measured:
        """The sizes of one part of a model's archive; the errors are those of `of_files`."""
        name = (f"{model.fingerprint()}/{part}", codec.name)
        kept = self._index.chunk_sizes(*name)
        if kept is None or not _plausible(kept.sizes):
            started_ns = time.time_ns()
            kept = ChunkSizes(0, True, next(self._measure([_Group(name, codec, units, is_small=True)], progress)))
            if self._is_settled(model.newest_ctime_ns, started_ns):
                self._index.keep_chunk_sizes([(*name, kept)])
        return Measured(name, kept.sizes, str(model.tag))

    def close(self) -> None:
        """Give up what is being measured or made."""
        self.maker.close()

    def _on_wrong(self, name: Name) -> None:
        log.info("measured sizes of %s (%s) were wrong; they are dropped", *name)
        self._index.forget_chunk_sizes(*name)
        self.maker.cache.forget(name)
        self.revision += 1

    def _known(self, file: MeasuredFile) -> ChunkSizes | None:
        kept = self._index.chunk_sizes(*_name(file))
        if kept is None or not 1 <= kept.effort <= MOST_EFFORT:
            return None
        if kept.sizes and (len(kept.sizes) != -(-file.length // CHUNK) or not _plausible(kept.sizes)):
            return None
        return kept

    def _keep(
        self, files: Sequence[MeasuredFile], found: dict[int, ChunkSizes], numbers: set[int], started_ns: int
    ) -> None:
        """Write what was learnt of some files, unless they are so young that a change would not show."""
        rows = [
            (*_name(files[number]), found[number])
            for number in numbers
            if self._is_settled(files[number].identity.ctime_ns, started_ns)
        ]
        numbers.clear()
        if rows:
            self._index.keep_chunk_sizes(rows)

    def _group(self, file: MeasuredFile, effort: int) -> _Group:
        units = (Unit(file, at, min(at + CHUNK, file.length)) for at in range(0, file.length, CHUNK))
        return _Group(_name(file), chunk_codec(effort), units, is_small=False)

    def _measure(self, groups: Sequence[_Group], progress: Progress | None) -> Iterator[array[int]]:
        """The sizes of each group's chunks."""
        batch = object()

        def measure(task: _Task) -> tuple[_Task, array[int]]:
            sizes = array("I")
            for at, unit in enumerate(task.units):
                number = task.first + at
                if task.contents:
                    made = self.maker.compress(task.codec, task.contents[at], number)
                else:
                    made = self.maker.encode(task.codec, *unit, number)
                self.maker.cache.keep_fresh(batch, (task.name, number), made)
                sizes.append(task.codec.size_of(made))
            return task, sizes

        found = [array("I") for _ in groups]
        done = 0
        for task, sizes in _in_parallel(measure, _tasks(groups)):
            while done < task.group:
                yield found[done]
                done += 1
            found[done].extend(sizes)
            if progress is not None:
                progress(sum(unit.stop - unit.start for unit in task.units))
        yield from found[done:]


def _tasks(groups: Sequence[_Group]) -> Iterator[_Task]:
    for number, group in enumerate(groups):
        first = size = 0
        units: list[Unit] = []
        contents: list[memoryview] = []
        for unit in group.units:
            if units and (size + unit.stop - unit.start > _TASK or len(units) >= _TASK_UNITS):
                yield _Task(number, group.name, group.codec, first, units, contents)
                first += len(units)
                size, units, contents = 0, [], []
            units.append(unit)
            if group.is_small:
                contents.append(memoryview(read_bytes(unit.content, unit.start, unit.stop - unit.start)))
            size += unit.stop - unit.start
        if units:
            yield _Task(number, group.name, group.codec, first, units, contents)


def _in_parallel(work: Callable[[_Task], _R], items: Iterable[_Task]) -> Iterator[_R]:
    """The results of `work` on each item, in order; a few items ahead, on all cores."""
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(work, first)
        return
    with ThreadPoolExecutor(CORES, thread_name_prefix="measure") as threads:
        under_way: deque[Future[_R]] = deque()
        try:
            for item in chain(first, rest):
                if item.is_short:
                    done: Future[_R] = Future()
                    done.set_result(work(item))
                    under_way.append(done)
                else:
                    under_way.append(threads.submit(work, item))
                if len(under_way) >= _WINDOW:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


def _judge(file: MeasuredFile) -> Verdict:
    return judge(b"".join(file.read_sample(*part) for part in sample_ranges(file.length)))


def _name(file: MeasuredFile) -> Name:
    return ":".join(map(str, file.identity)), codec_name()


def _plausible(sizes: array[int]) -> bool:
    return all(0 < size <= _MAX_SIZE for size in sizes)
