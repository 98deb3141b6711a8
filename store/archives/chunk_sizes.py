"""Sizes of compressed chunks. They are measured once, before an archive's size is known, and kept in the index.

A large file's sizes are keyed by its identity, and shared by formats, models and mounts. The sizes of an archive's
other parts are keyed by the model's fingerprint. All are keyed by the codec, too: for another ISA-L they are measured
anew.

Threading: all methods may be called from any thread. Measuring runs on all cores.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple, Protocol, TypeVar

from bentofs.store.archives.crc32_cache import MeasuredFile
from bentofs.store.archives.index import ChunkSizes, SizesRow
from bentofs.store.formats.write.chunk_maker import CORES, ChunkMaker
from bentofs.store.formats.write.chunks import Codec, Measured, Name, Unit
from bentofs.store.formats.write.deflate import CHUNK, END, MOST_EFFORT, Verdict, chunk_codec, codec_name, judge
from bentofs.store.formats.write.members import Deflated, Packing
from bentofs.store.formats.write.registry import Contents
from bentofs.store.model.model import Model
from bentofs.store.storage.timestamps import is_settled
from bentofs.store.util.memory_budget import MemoryBudget

log = logging.getLogger(__name__)

_WINDOW = 2 * CORES  # tasks that are running, or done and not yet taken
_TASK = 1 << 20  # bytes of content in a task
_TASK_UNITS = 64  # small files in a task
_SHORT = 16 << 10  # bytes: threads that compress less at a time wait for Python's lock longer than they work
_MAX_SIZE = 1 << 22  # bytes: no compressed chunk is larger; an index that says so is wrong
_KEEP_EVERY = 64  # large files, after which their sizes are written

_R = TypeVar("_R")
Progress = Callable[[int], None]  # told how many more bytes of content were measured


class _Group(NamedTuple):
    """The content that is measured under one name."""

    name: Name
    codec: Codec
    is_wanted: bool = True  # by the reader who is about to come


class _Task(NamedTuple):
    """Consecutive chunks of one group."""

    group: int
    first: int
    contents: list[Unit | memoryview]

    @property
    def length(self) -> int:
        """Bytes of content."""
        return sum(map(_length, self.contents))

    @property
    def is_short(self) -> bool:
        """True if handing it to another thread would take longer than the task itself."""
        return len(self.contents) * _SHORT > self.length


class SizesKept(Protocol):
    """A place that keeps sizes, such as `store.archives.index.Index`."""

    def chunk_sizes(self, content: str, codec: str) -> ChunkSizes | None: ...

    def keep_chunk_sizes(self, rows: Iterable[SizesRow]) -> None: ...

    def forget_chunk_sizes(self, content: str, codec: str) -> None: ...


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
    ) -> list[Packing | Deflated]:
        """Return how each of these large files goes into a compressed archive. Measure unless it is known.

        `forced`: compress all, regardless of samples; `only_known`: measure nothing.

        Raises:
            NotMeasuredError: `only_known`, and sizes are unknown.
            SourceChangedError, StoreUnreadableError: while reading a file.
            CancelledError: the process ends.
        """
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
            groups = [_Group(_name(files[number]), chunk_codec(found[number].effort)) for number in unmeasured]
            units = ((of, unit) for of, number in enumerate(unmeasured) for unit in _units(files[number]))
            sizes = array("I")
            for of, more in self._measure(groups, units, progress):
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
        packings: list[Packing | Deflated] = [Packing.STORED] * len(files)
        for number in wanted:
            what, file = found[number], files[number]
            if sum(what.sizes) + len(END) < file.length:
                packings[number] = Deflated(Measured(_name(file), what.sizes, file.source), what.effort)
        return packings

    def of_part(
        self,
        model: Model,
        part: str,
        how: str,
        codecs: Mapping[str, Codec],
        contents: Contents,
        progress: Progress | None = None,
        *,
        only_known: bool = False,
    ) -> Measured:
        """Return the sizes of one part of a model's archive. If it must be measured, measure the other parts in
        `codecs`, too. It raises the same errors as `of_files`.

        `how`: names all else that sizes depend on, beside the model and the codec. `only_known`: measure nothing."""
        fingerprint = model.fingerprint()
        names = {each: (f"{fingerprint}/{each}/{how}", codec.name) for each, codec in codecs.items()}
        sizes = self._known_part(names[part])
        if sizes is None and only_known:
            raise NotMeasuredError
        if sizes is None:
            started_ns = time.time_ns()
            is_kept = self._is_settled(model.newest_ctime_ns, started_ns)
            unknown = [
                part,
                *(each for each in names if each != part and is_kept and not self._known_part(names[each])),
            ]
            found = {each: array("I") for each in unknown}
            groups = [_Group(names[each], codecs[each], is_wanted=each == part) for each in unknown]
            numbered = ((unknown.index(each), content) for each, content in contents(unknown))
            for of, more in self._measure(groups, numbered, progress):
                found[unknown[of]].extend(more)
            if is_kept:
                self._index.keep_chunk_sizes((*names[each], ChunkSizes(0, True, found[each])) for each in unknown)
            sizes = found[part]
        return Measured(names[part], sizes, str(model.tag))

    def close(self) -> None:
        """Cancel measuring and compression."""
        self.maker.close()

    def _on_wrong(self, name: Name) -> None:
        log.info("measured sizes of %s (%s) were wrong; they are dropped", *name)
        self._index.forget_chunk_sizes(*name)
        self.maker.cache.forget(name)
        self.revision += 1

    def _known_part(self, name: Name) -> array[int] | None:
        kept = self._index.chunk_sizes(*name)
        return kept.sizes if kept is not None and _plausible(kept.sizes) else None

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

    def _measure(
        self, groups: Sequence[_Group], contents: Iterable[tuple[int, Unit | memoryview]], progress: Progress | None
    ) -> Iterator[tuple[int, array[int]]]:
        """Yield pairs of a group and the sizes of its next chunks. `contents`: each chunk's group and content."""
        reader = object()

        def measure(task: _Task) -> tuple[_Task, array[int]]:
            sizes = array("I")
            name, codec, is_wanted = groups[task.group]
            for number, content in enumerate(task.contents, task.first):
                if isinstance(content, memoryview):
                    made = self.maker.compress(codec, content, number)
                else:
                    made = self.maker.encode(codec, *content, number)
                self.maker.cache.keep_fresh(reader if is_wanted and self._has_reader else None, (name, number), made)
                sizes.append(codec.size_of(made))
            return task, sizes

        for task, sizes in _in_parallel(measure, _tasks(contents)):
            yield task.group, sizes
            if progress is not None and groups[task.group].is_wanted:
                progress(task.length)


def _tasks(contents: Iterable[tuple[int, Unit | memoryview]]) -> Iterator[_Task]:
    """Yield tasks. A chunk that is still to be read is a task of its own; chunks in memory are gathered until they are
    worth another thread."""
    counts: Counter[int] = Counter()
    gathered: dict[int, list[Unit | memoryview]] = {}
    sizes: Counter[int] = Counter()

    def task(group: int, contents: list[Unit | memoryview]) -> _Task:
        first = counts[group]
        counts[group] += len(contents)
        return _Task(group, first, contents)

    for group, content in contents:
        if not isinstance(content, memoryview):
            yield task(group, [content])
            continue
        if sizes[group] + len(content) > _TASK or len(gathered.get(group, ())) >= _TASK_UNITS:
            yield task(group, gathered.pop(group))
            sizes[group] = 0
        gathered.setdefault(group, []).append(content)
        sizes[group] += len(content)
    for group, rest in gathered.items():
        yield task(group, rest)


def _length(content: Unit | memoryview) -> int:
    return len(content) if isinstance(content, memoryview) else content.stop - content.start


def _in_parallel(work: Callable[[_Task], _R], items: Iterable[_Task]) -> Iterator[_R]:
    """Yield the results of `work` on each item, in order. Work a few items ahead, on all cores."""
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


def _units(file: MeasuredFile) -> Iterator[Unit]:
    return chunk_codec(MOST_EFFORT).units(file, 0, file.length)  # the same at any effort


def _count(file: MeasuredFile) -> int:
    """Return the number of a large file's chunks."""
    return -(-file.length // CHUNK)


def _judge(file: MeasuredFile) -> Verdict:
    return judge(file.read_sample, file.length)


def _name(file: MeasuredFile) -> Name:
    return ":".join(map(str, file.identity)), codec_name()


def _plausible(sizes: array[int]) -> bool:
    return all(0 < size <= _MAX_SIZE for size in sizes)
