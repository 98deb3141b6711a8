"""CRC-32s of runs of bytes that arrive in any order, and of combined runs.

ISA-L computes them at 10 GB/s, so they can be computed from the bytes while these are served.
"""

from __future__ import annotations

import functools
import threading
from array import array
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from isal.isal_zlib import crc32, crc32_combine

from bentofs.store.formats.pieces import Piece, Views
from bentofs.store.formats.write.chunk_maker import CORES
from bentofs.store.util.aligned_buffer import page_buffer

__all__ = ["BlockChecksums", "RunningChecksum", "crc32", "crc32_combine", "crc32_of", "crc32_of_repeated"]

_BUFFER = 256 << 10  # bytes read at a time: fits the L2 cache
_THREADS = min(4, CORES)  # threads that read one range
_STRIPE = 4 << 20  # bytes that each thread reads at most before the results are combined
_WORTH_A_THREAD = 512 << 10  # bytes that each thread reads at least
_PARTS_KEPT = 256  # runs kept that arrived ahead of the first gap; later ones are dropped and read again
_RUNNING_KEPT = 64  # blocks that are partly known
_local = threading.local()  # `buffer`: this thread's buffer; `helps`: set if the thread belongs to the pool


class RunningChecksum:
    """The CRC-32 of one run of bytes, computed from parts that are served in roughly sequential order.

    The class has no lock. Only `extend` may run in parallel with the other methods: at worst, one part is forgotten.
    """

    __slots__ = ("_parts", "_state")

    def __init__(self) -> None:
        self._state = (0, 0)  # number of bytes from the start whose CRC is known, and that CRC
        self._parts: dict[int, tuple[int, int]] = {}  # start -> length, CRC

    def extend(self, start: int, views: Views) -> bool:
        """Add bytes that begin at `start`, if the known bytes end there. Else do nothing and return False."""
        done, crc = self._state
        if start != done or self._parts:
            return False
        for view in views:
            crc = crc32(view, crc)
            done += len(view)
        self._state = (done, crc)
        return True

    def add(self, start: int, views: Views) -> None:
        """Add bytes that begin at `start`."""
        crc = length = 0
        for view in views:
            crc = crc32(view, crc)
            length += len(view)
        self._add(start, length, crc)

    def _add(self, start: int, length: int, crc: int) -> None:
        done, known = self._state
        if start == done:
            self._state = (done + length, crc32_combine(known, crc, length))
        elif start > done and len(self._parts) < _PARTS_KEPT:
            self._parts[start] = (length, crc)
        self.join()

    def join(self) -> None:
        """Add the parts that arrived ahead and now follow the known bytes."""
        done, known = self._state
        while done in self._parts:
            length, crc = self._parts.pop(done)
            known = crc32_combine(known, crc, length)
            done += length
            self._state = (done, known)

    def read_on(self, piece: Piece, length: int, count: int) -> bool:
        """Read up to `count` of the next bytes from `piece` and add them; `piece` holds the `length` bytes of the run.
        Return True if bytes are left."""
        done = self._state[0]
        part = _buffer()[: min(count, length - done)]
        piece.read_into([part], done)
        return self.extend(done, [part]) and done + len(part) < length

    @property
    def is_waiting(self) -> bool:
        """True if parts arrived ahead. Call `join`: `extend` may have filled the gap in the meantime."""
        return bool(self._parts)

    @property
    def begun(self) -> bool:
        """True if any bytes were added."""
        return bool(self._state[0] or self._parts)

    def value(self, length: int) -> int | None:
        """Return the CRC of all `length` bytes; None if it is not known yet."""
        done, crc = self._state
        return crc if done == length else None

    def complete(self, piece: Piece, start: int, length: int) -> int:
        """Return the CRC of all bytes. Missing bytes are read from `piece`, where the run begins at `start`."""
        while (done := self._state[0]) < length:
            gap_end = min((part for part in self._parts if part > done), default=length)
            self._add(done, gap_end - done, crc32_of(piece, start + done, gap_end - done))
            self._parts = {part: known for part, known in self._parts.items() if part >= self._state[0]}
        return self._state[1]


class BlockChecksums:
    """The CRC-32 of each block of a piece, computed from the bytes while they are served. All blocks have one length.

    Takes four bytes a block, whatever the size of the piece.
    """

    def __init__(self, piece: Piece, block_length: int, count: int) -> None:
        self._piece = piece
        self._block_length = block_length
        self._crcs = array("I", bytes(array("I").itemsize * count))
        self._known = bytearray(count)
        self._running: OrderedDict[int, RunningChecksum] = OrderedDict()
        self._lock = threading.Lock()

    def wants(self, block: int) -> bool:
        """True if the block's CRC is not known yet."""
        return not self._known[block]

    def note(self, block: int, start: int, views: Views) -> None:
        """Add bytes of the block that were served, from `start` on."""
        running = self._running.get(block)
        taken = running is not None and running.extend(start, views)
        if running is not None and taken and not running.is_waiting and running.value(self._block_length) is None:
            return  # the usual case
        with self._lock:
            running = self._running.get(block)
            if running is None:
                if self._known[block]:
                    return
                running = self._running[block] = RunningChecksum()
                if len(self._running) > _RUNNING_KEPT:
                    self._running.popitem(last=False)
            if taken:
                running.join()
            else:
                running.add(start, views)
            whole = running.value(self._block_length)
            if whole is not None:
                self._settle(block, whole)

    def crc(self, block: int) -> int:
        """Return the block's CRC. Bytes that were not served yet are read."""
        if not self._known[block]:
            with self._lock:
                running = self._running.pop(block, None) or RunningChecksum()
            whole = running.complete(self._piece, block * self._block_length, self._block_length)
            with self._lock:
                self._settle(block, whole)
        return self._crcs[block]

    def _settle(self, block: int, crc: int) -> None:
        self._crcs[block] = crc
        self._known[block] = 1
        self._running.pop(block, None)


def crc32_of(piece: Piece, start: int, length: int, crc: int = 0) -> int:
    """Return the CRC-32 of a range of a piece, continued from `crc`. Reads in bounded memory and on a few cores."""
    while length:
        stripe = min(_STRIPE, -(-length // _THREADS))
        if stripe < _WORTH_A_THREAD or getattr(_local, "helps", False):  # helpers must not wait for each other
            return _crc32_of_part(piece, start, length, crc)
        window = min(length, stripe * _THREADS)
        parts = [(start + at, min(stripe, window - at)) for at in range(0, window, stripe)]
        others = [_pool().submit(_crc32_of_part, piece, at, size, 0) for at, size in parts[1:]]
        crc = _crc32_of_part(piece, *parts[0], crc)
        for (at, size), other in zip(parts[1:], others, strict=True):
            # A task that has not started may wait for helpers that hang in another file, on a dead disk.
            part = _crc32_of_part(piece, at, size, 0) if other.cancel() else other.result()
            crc = crc32_combine(crc, part, size)
        start += window
        length -= window
    return crc


def _crc32_of_part(piece: Piece, start: int, length: int, crc: int) -> int:
    buffer = _buffer()
    while length:
        part = buffer[: min(_BUFFER, length)]
        piece.read_into([part], start)
        crc = crc32(part, crc)
        start += len(part)
        length -= len(part)
    return crc


def _buffer() -> memoryview:
    """Return this thread's buffer."""
    buffer: memoryview | None = getattr(_local, "buffer", None)
    if buffer is None:
        buffer = _local.buffer = page_buffer(_BUFFER)
    return buffer


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS - 1, "checksum", lambda: setattr(_local, "helps", True))


def crc32_of_repeated(pattern: bytes, count: int, crc: int = 0) -> int:
    """Return the CRC-32 of the pattern repeated `count` times, continued from `crc`. Works by doubling."""
    power, length = crc32(pattern), len(pattern)
    while count:
        if count & 1:
            crc = crc32_combine(crc, power, length)
        power = crc32_combine(power, power, length)
        length *= 2
        count >>= 1
    return crc
