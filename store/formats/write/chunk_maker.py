"""ChunkMaker: makes the chunks of all archives of a process.

A requested chunk is made in the caller's thread. For a sequential reader, the next chunks are made ahead on all cores.
Readers that want the same chunk share it. The cache and a few buffers bound the memory, whatever the number of readers.

Threading: any thread may call anything here. A thread that hangs in a read blocks only those that want the same chunk.
"""

from __future__ import annotations

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bentofs.store.errors import CancelledError
from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.formats.write.chunk_cache import ChunkCache
from bentofs.store.formats.write.chunks import Chunks, Codec, Key, Name, Sampled
from bentofs.store.util.aligned_buffer import page_buffer
from bentofs.store.util.memory_budget import MemoryBudget
from bentofs.store.util.threads import handed_over

CORES = len(os.sched_getaffinity(0))
_AHEAD = (CORES + 2) << 20  # bytes of content that are compressed ahead of a reader
_SMALL = 64 << 10  # bytes of content: less is not worth another thread
_STEPS = 8  # chunks that are considered ahead, if they are small
_SLOTS = 2 * CORES  # chunks that are made at a time
_SLOT_SECONDS = 0.5  # seconds; if all slots hang longer, probably on a dead disk, others go on without one


class _Job:
    """A chunk that is being made."""

    __slots__ = ("claimed", "done", "error", "made")

    def __init__(self) -> None:
        self.claimed = False
        self.done = threading.Event()
        self.made = b""
        self.error: BaseException | None = None


class ChunkMaker:
    """Makes the chunks of all archives of a process."""

    def __init__(self, on_wrong: Callable[[Name], None], budget: MemoryBudget | None = None) -> None:
        """`on_wrong` is called for content that does not match its measurement. `budget`: None for a private one."""
        self._on_wrong = on_wrong
        self._lock = threading.Lock()  # never held while reading or compressing
        self._making: dict[Key, _Job] = {}
        self._helpers = ThreadPoolExecutor(CORES, thread_name_prefix="chunks")
        self._slots = threading.BoundedSemaphore(_SLOTS)
        self._buffers: deque[memoryview] = deque(maxlen=_SLOTS)
        self._budget = budget or MemoryBudget()
        self.cache = ChunkCache(self._buffers.clear, self._budget)
        self._closed = False

    def close(self) -> None:
        """Stop making chunks. Chunks that are being made soon fail with CancelledError."""
        self._closed = True
        self._helpers.shutdown(wait=False, cancel_futures=True)

    def on_wrong(self, name: Name) -> None:
        """Report that the measurement of some content is wrong."""
        self._on_wrong(name)

    def chunk(self, chunks: Chunks, index: int) -> bytes:
        """Return a chunk; make it if it is not cached. If a reader reads on, also make the next chunks soon."""
        key = chunks.key(index)
        with self._lock:
            made = self.cache.get(key)
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

    def encode(self, codec: Codec, content: Piece, start: int, stop: int, number: int) -> bytes:
        """Read and compress [start, stop) of some content: the chunk `number`.

        Raises:
            SourceChangedError, StoreUnreadableError: the read failed.
            CancelledError: the process ends.
        """
        with self._slot():
            self._check_open()
            size = stop - start
            buffer = self._buffer(size)
            before = b""
            if window := min(codec.window, start):
                read = content.read_sample if isinstance(content, Sampled) else functools.partial(read_bytes, content)
                before = read(start - window, window)
            view = buffer[:size]
            content.read_into([view], start)
            made = codec.encode(view, number, before)
            if not self._budget.is_short:
                self._buffers.append(buffer)
            return made

    def compress(self, codec: Codec, content: memoryview, number: int) -> bytes:
        """Compress bytes in memory, like `encode`. The codec must not need the content before them."""
        self._check_open()
        return codec.encode(content, number, b"")

    def _check_open(self) -> None:
        if self._closed:
            raise CancelledError("bentofs ends")

    def _buffer(self, size: int) -> memoryview:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            return page_buffer(size)
        return buffer if len(buffer) >= size else page_buffer(size)

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Take a slot, the right to fill a buffer. Bounds the memory of the chunks that are being made."""
        has_slot = self._slots.acquire(timeout=_SLOT_SECONDS)
        try:
            yield
        finally:
            if has_slot:
                self._slots.release()

    def _look_ahead(self, chunks: Chunks, index: int) -> None:
        """Start to make the next chunks if this one follows a chunk that was read."""
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
            if length >= _SMALL and key not in self._making and key not in self.cache:
                self._making[key] = job = _Job()
                self._help(job, at, index)

    def _help(self, job: _Job, chunks: Chunks, index: int) -> None:
        if self._closed:
            job.claimed = True
            self._settle(job, chunks.key(index), CancelledError("bentofs ends"))
        else:
            if not handed_over(self._helpers, functools.partial(self._work_if_free, job, chunks, index)):
                del self._making[chunks.key(index)]  # its reader makes it

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
        except BaseException as error:  # the waiting threads raise it
            with self._lock:
                self._settle(job, key, error)
            return
        with self._lock:
            job.made = made
            self._settle(job, key, None)
            self.cache.keep(key, made)

    def _settle(self, job: _Job, key: Key, error: BaseException | None) -> None:
        del self._making[key]
        job.error = error
        job.done.set()
