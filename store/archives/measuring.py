"""Measuring of chunks: compress them on all cores, and keep their sizes.

Threading: the caller's thread reads ranges of a tar, and compresses what is not worth another thread. Other threads
read and compress the chunks of large files, and compress the rest.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import NamedTuple, Protocol, TypeVar

from bentofs.store.formats.write.chunk_maker import CORES, ChunkMaker
from bentofs.store.formats.write.chunks import Codec, Name, Unit

_WINDOW = 2 * CORES  # tasks that are running, or done and not yet taken
_TASK = 1 << 20  # bytes of content in a task
_TASK_UNITS = 64  # small files after which a task is handed over
SHORT = 16 << 10  # bytes: threads that compress less at a time wait for Python's lock longer than they work


class Work(Protocol):
    """A piece of work."""

    @property
    def is_short(self) -> bool:
        """True if handing it to another thread would take longer than the work itself."""


_R = TypeVar("_R")
_T = TypeVar("_T", bound=Work)
Contents = Sequence[Unit] | Sequence[memoryview]  # of chunks: still to be read, or in memory
Progress = Callable[[int], None]  # told how many more bytes of content were measured


class Group(NamedTuple):
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
        return len(self.contents) * SHORT > self.length


def measure_chunks(
    maker: ChunkMaker,
    groups: Sequence[Group],
    contents: Iterable[tuple[int, Contents]],
    progress: Progress | None,
    *,
    has_reader: bool,
) -> Iterator[tuple[int, array[int]]]:
    """Yield pairs of a group's number and the sizes of its next chunks.

    `contents`: a group, and the contents of its next chunks. `has_reader`: a reader waits for the chunks of wanted
    groups.

    Raises:
        SourceChangedError, StoreUnreadableError: while reading.
        CancelledError: the process ends.
    """
    reader = object()

    def measure(task: _Task) -> tuple[_Task, array[int]]:
        sizes = array("I")
        name, codec, is_wanted = groups[task.group]
        all_made: list[bytes] = []
        for number, content in enumerate(task.contents, task.first):
            if isinstance(content, memoryview):
                made = maker.compress(codec, content, number)
            else:
                made = maker.encode(codec, *content, number)
            all_made.append(made)
            sizes.append(codec.size_of(made))
        maker.cache.keep_fresh(reader if is_wanted and has_reader else None, name, task.first, all_made)
        return task, sizes

    for task, sizes in in_parallel(measure, _tasks(contents)):
        yield task.group, sizes
        if progress is not None and groups[task.group].is_wanted:
            progress(task.length)


def _tasks(contents: Iterable[tuple[int, Contents]]) -> Iterator[_Task]:
    """Yield tasks. A chunk that is still to be read is a task of its own; chunks in memory are gathered until they are
    worth another thread."""
    counts: Counter[int] = Counter()
    gathered: dict[int, list[Unit | memoryview]] = {}
    sizes: Counter[int] = Counter()

    def task(group: int, contents: list[Unit | memoryview]) -> _Task:
        first = counts[group]
        counts[group] += len(contents)
        return _Task(group, first, contents)

    for group, following in contents:
        if not isinstance(following[0], memoryview):
            yield task(group, list(following))
            continue
        size = sum(map(_length, following))
        if group in gathered and (sizes[group] + size > _TASK or len(gathered[group]) >= _TASK_UNITS):
            yield task(group, gathered.pop(group))
            sizes[group] = 0
        gathered.setdefault(group, []).extend(following)
        sizes[group] += size
    for group, rest in gathered.items():
        yield task(group, rest)


def _length(content: Unit | memoryview) -> int:
    return len(content) if isinstance(content, memoryview) else content.stop - content.start


def in_parallel(work: Callable[[_T], _R], items: Iterable[_T], window: int = _WINDOW) -> Iterator[_R]:
    """Yield the results of `work` on each item, in order. Work `window` items ahead, on all cores."""
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
                if len(under_way) >= window:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
