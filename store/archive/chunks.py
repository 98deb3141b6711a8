"""Chunks: pieces of compressed content, whose lengths were measured and whose bytes are made when they are read.

Content is cut into chunks that are compressed apart, so that any of them can be made by itself. `ChunkMaker` makes them
for all archives of a process: the one that is asked for in the asker's thread, those that come next ahead of a
sequential reader on all cores. Readers that want the same chunk share it. Memory is bounded by `_RECENT`, `_FRESH` and
a few buffers, whatever the number of readers.

Threading: any thread may call anything here. A thread that is stuck in reading keeps up those only that want the same.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from array import array
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from store.archive.pieces import Piece, Views, copy_into, split
from store.errors import CancelledError, SourceChangedError
from store.text import printable

Name = tuple[str, str]  # of content, and of the codec that it was measured with
_Key = tuple[Name, int]

CORES = len(os.sched_getaffinity(0))
_RECENT = 16 << 20  # bytes of chunks that were read or made ahead
_FRESH = 40 << 20  # bytes of chunks that were measured just now and wait for their reader
_IDLE_SECONDS = 20.0  # after which both are dropped
_AHEAD = (CORES + 2) << 20  # bytes of content that are made ahead of a reader
_SMALL = 64 << 10  # bytes of content that are not worth another thread
_STEPS = 8  # chunks that are looked at, when they are small
_SLOTS = 2 * CORES  # chunks in the making at a time
_SLOT_SECONDS = 0.5  # when all of them have been stuck for so long, probably on a dead disk, others go on without
_TRACKED = 16  # places of one archive at which readers may be

Encode = Callable[[memoryview, int], bytes]  # content of a chunk, and its number


def _itself(size: int) -> int:
    return size


class Codec(NamedTuple):
    """A way to compress chunks."""

    name: str  # changes whenever other bytes could come out
    chunk: int  # bytes of content
    encode: Encode
    size_of: Callable[[bytes], int] = len  # what the measurement keeps of a chunk
    length_of: Callable[[int], int] = _itself  # and the chunk's length, from that


class Measured(NamedTuple):
    """What was learnt of some content's chunks."""

    name: Name
    sizes: array[int]  # one of each chunk, as the codec's `size_of` gives it
    of: str  # what it is, to show to a user


class Chunks:
    """A range of some content, compressed chunk by chunk."""

    __slots__ = (
        "_codec",
        "_content",
        "_ends",
        "_first",
        "_maker",
        "_measured",
        "_start",
        "_stop",
        "count",
        "following",
        "length",
        "number",
        "track",
    )

    def __init__(
        self,
        maker: ChunkMaker,
        codec: Codec,
        content: Piece,
        measured: Measured,
        start: int = 0,
        stop: int | None = None,
        first: int = 0,
    ) -> None:
        """`first`: which of the measured chunks begins at `start`.

        Raises:
            SourceChangedError: fewer chunks were measured than there are.
        """
        self._maker = maker
        self._codec = codec
        self._content = content
        self._measured = measured
        self._start = start
        self._stop = content.length if stop is None else stop
        self._first = first
        self.count = -(-(self._stop - start) // codec.chunk)
        sizes = measured.sizes[first : first + self.count]
        self._ends = array("Q", itertools.accumulate(map(codec.length_of, sizes)))
        if len(self._ends) < self.count:
            maker.on_wrong(measured.name)
            raise SourceChangedError(f"too little is known of {printable(measured.of)}; it is measured again")
        self.length = self._ends[-1]
        # Set by `put_in_order`:
        self.number = 0  # of the first chunk, in the archive
        self.following: Chunks | None = None
        self.track: Track | None = None

    def read_into(self, views: Views, offset: int) -> None:
        """As `Piece.read_into`.

        Raises:
            SourceChangedError: also when a chunk comes out otherwise than it was measured.
            CancelledError: the process ends.
        """
        wanted = sum(map(len, views))
        index = bisect_right(self._ends, offset)
        within = offset - (self._ends[index - 1] if index else 0)
        rest = list(views)
        while wanted:
            made = self._maker.chunk(self, index)
            count = min(len(made) - within, wanted)
            head, rest = split(rest, count)
            copy_into(head, made, within)
            wanted -= count
            within = 0
            index += 1

    def key(self, index: int) -> _Key:
        return self._measured.name, self._first + index

    def content_length(self, index: int) -> int:
        """Bytes of content in one chunk."""
        return min(self._codec.chunk, self._stop - self._start - index * self._codec.chunk)

    def make(self, index: int) -> bytes:
        """Compress one chunk."""
        start = self._start + index * self._codec.chunk
        number = self._first + index
        made = self._maker.encode(self._codec, self._content, start, start + self.content_length(index), number)
        if self._codec.size_of(made) != self._measured.sizes[number]:
            self._maker.on_wrong(self._measured.name)
            raise SourceChangedError(
                f"{printable(self._measured.of)} is compressed to another length than was measured; it is measured "
                "again when it is looked up again"
            )
        return made


class Track:
    """Where the readers of one archive are: numbers of chunks."""

    def __init__(self) -> None:
        self.recent: deque[int] = deque(maxlen=_TRACKED)


def put_in_order(chunks: Sequence[Chunks]) -> None:
    """Tell the chunks of one archive what follows on what, so that they can be made ahead."""
    track = Track()
    number = 0
    for each, following in itertools.zip_longest(chunks, chunks[1:]):
        each.track, each.number, each.following = track, number, following
        number += each.count


class _Job:
    """One chunk in the making."""

    __slots__ = ("claimed", "done", "error", "made")

    def __init__(self) -> None:
        self.claimed = False
        self.done = threading.Event()
        self.made = b""
        self.error: BaseException | None = None


class ChunkMaker:
    """Makes the chunks of all archives of a process."""

    def __init__(self, on_wrong: Callable[[Name], None]) -> None:
        """`on_wrong` is told of what came out otherwise than it was measured."""
        self.on_wrong = on_wrong
        self._lock = threading.Lock()  # never held while reading or compressing
        self._making: dict[_Key, _Job] = {}
        self._recent: OrderedDict[_Key, bytes] = OrderedDict()
        self._recent_size = 0
        self._fresh: OrderedDict[_Key, tuple[object, bytes]] = OrderedDict()
        self._fresh_size = 0
        self._used = 0.0  # monotonic
        self._timer: threading.Timer | None = None
        self._helpers = ThreadPoolExecutor(CORES, thread_name_prefix="chunks")
        self._slots = threading.BoundedSemaphore(_SLOTS)
        self._buffers: deque[bytearray] = deque(maxlen=_SLOTS)
        self._closed = False

    def close(self) -> None:
        """Make nothing more; what is being made ends with CancelledError soon."""
        self._closed = True
        self._helpers.shutdown(wait=False, cancel_futures=True)

    def chunk(self, chunks: Chunks, index: int) -> bytes:
        """One chunk, made now unless it is at hand; and the next ones soon, if a reader comes along."""
        key = chunks.key(index)
        with self._lock:
            made = self._at_hand(key)
            self._look_ahead(chunks, index)
            if made is not None:
                return made
            job = self._making.get(key)
            if job is None:
                job = self._making[key] = _Job()
            mine = not job.claimed
            job.claimed = True
        if mine:
            self._work(job, chunks, index)
        else:
            job.done.wait()
        if job.error is not None:
            raise job.error
        return job.made

    def keep_fresh(self, batch: object, name: Name, number: int, made: bytes) -> None:
        """Keep a chunk that was just measured for the reader who is about to come, while there is room. Those of the
        same `batch` come first: a reader begins at the start, so the first ones stay."""
        with self._lock:
            while self._fresh_size + len(made) > _FRESH:
                key, (other, old) = next(iter(self._fresh.items()), (None, (batch, b"")))
                if key is None or other is batch:
                    return
                del self._fresh[key]
                self._fresh_size -= len(old)
            self._drop_fresh((name, number))
            self._fresh[name, number] = (batch, made)
            self._fresh_size += len(made)
            self._note_use()

    def forget(self, name: Name) -> None:
        """Drop what is at hand of some content."""
        with self._lock:
            for key in [key for key in self._fresh if key[0] == name]:
                self._drop_fresh(key)
            for key in [key for key in self._recent if key[0] == name]:
                self._recent_size -= len(self._recent.pop(key))

    def encode(self, codec: Codec, content: Piece, start: int, stop: int, number: int) -> bytes:
        """Read and compress [start, stop) of some content: the chunk of this number.

        Raises:
            SourceChangedError, StoreUnreadableError: as reading does.
            CancelledError: the process ends.
        """
        with self._slot():
            self._check_open()
            size = stop - start
            buffer = self._buffer(size)
            with memoryview(buffer) as whole, whole[:size] as view:
                content.read_into([view], start)
                made = codec.encode(view, number)
            self._buffers.append(buffer)
            return made

    def compress(self, codec: Codec, content: memoryview, number: int) -> bytes:
        """As `encode`, of bytes that are at hand."""
        self._check_open()
        return codec.encode(content, number)

    def _check_open(self) -> None:
        if self._closed:
            raise CancelledError("bentofs ends")

    def _buffer(self, size: int) -> bytearray:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = bytearray()
        return buffer if len(buffer) >= size else bytearray(size)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """The right to fill a buffer: bounds the memory of what is in the making."""
        has_slot = self._slots.acquire(timeout=_SLOT_SECONDS)
        try:
            yield
        finally:
            if has_slot:
                self._slots.release()

    def _at_hand(self, key: _Key) -> bytes | None:
        made = self._recent.get(key)
        if made is not None:
            self._recent.move_to_end(key)
        elif key in self._fresh:
            made = self._fresh[key][1]
            self._used = time.monotonic()
        return made

    def _drop_fresh(self, key: _Key) -> bytes:
        _, made = self._fresh.pop(key, (None, b""))
        self._fresh_size -= len(made)
        return made

    def _keep(self, key: _Key, made: bytes) -> None:
        self._recent[key] = made
        self._recent_size += len(made)
        while self._recent_size > _RECENT and len(self._recent) > 1:
            self._recent_size -= len(self._recent.popitem(last=False)[1])
        self._note_use()

    def _look_ahead(self, chunks: Chunks, index: int) -> None:
        """Have the next chunks made if this one follows on one that was read."""
        track = chunks.track
        number = chunks.number + index
        if track is None or number in track.recent:
            return
        follows = number - 1 in track.recent
        track.recent.append(number)
        if not follows:
            return
        ahead = 0
        at: Chunks | None = chunks
        while ahead < _AHEAD and len(self._making) < 3 * CORES:
            index += 1
            while at is not None and index >= at.count:
                at, index = at.following, 0
            if at is None:
                return
            length = at.content_length(index)
            ahead += max(length, _AHEAD // _STEPS)
            key = at.key(index)
            if length >= _SMALL and not (key in self._making or key in self._recent or key in self._fresh):
                self._making[key] = job = _Job()
                self._help(job, at, index)

    def _help(self, job: _Job, chunks: Chunks, index: int) -> None:
        if self._closed:
            job.claimed = True
            self._settle(job, chunks.key(index), CancelledError("bentofs ends"))
        else:
            self._helpers.submit(self._work_if_free, job, chunks, index)

    def _work_if_free(self, job: _Job, chunks: Chunks, index: int) -> None:
        with self._lock:
            if job.claimed:
                return
            job.claimed = True
        self._work(job, chunks, index)

    def _work(self, job: _Job, chunks: Chunks, index: int) -> None:
        key = chunks.key(index)
        try:
            made = chunks.make(index)
        except BaseException as error:  # whoever waits for it raises it
            with self._lock:
                self._settle(job, key, error)
            return
        with self._lock:
            job.made = made
            self._keep(key, made)
            self._settle(job, key, None)

    def _settle(self, job: _Job, key: _Key, error: BaseException | None) -> None:
        del self._making[key]
        job.error = error
        job.done.set()

    def _note_use(self) -> None:
        self._used = time.monotonic()
        if self._timer is None:
            self._start_timer()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(_IDLE_SECONDS, self._drop_idle)
        self._timer.daemon = True
        self._timer.start()

    def _drop_idle(self) -> None:
        with self._lock:
            if time.monotonic() - self._used < _IDLE_SECONDS:
                self._start_timer()
                return
            self._timer = None
            self._fresh.clear()
            self._recent.clear()
            self._buffers.clear()
            self._fresh_size = self._recent_size = 0
