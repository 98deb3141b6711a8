"""Buffers for requests and for the file bytes of replies. Only a few of them stay in memory while they are not in use.

Each thread needs room for the longest request, a WRITE of 1 MiB, whatever it reads next from the device. The pages of
such a buffer take memory once they were written to. With many threads, that would be many MiB for nothing. While
decoders need all memory, no buffer stays.

Threading: any thread may take buffers. A `RequestBuffer` belongs to one thread.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque
from typing import cast

from bentofs.store.util.aligned_buffer import page_buffer
from bentofs.store.util.memory_budget import MemoryBudget

_KEPT = 2  # of each kind: as many as one program keeps busy. More of them cost a busy thread 0.1 ms for each request
_PAGE = mmap.PAGESIZE


class RequestBuffer:
    """The buffer of one thread."""

    def __init__(self, size: int, kept: threading.Semaphore, budget: MemoryBudget) -> None:
        """`kept`: the right to stay in memory."""
        self.view = page_buffer(size)
        self._kept = kept
        self._budget = budget
        self._stays = False

    def free(self) -> None:
        """Return the memory to the system, except for the page with the request."""
        cast(mmap.mmap, self.view.obj).madvise(mmap.MADV_DONTNEED, _PAGE)
        if self._stays:
            self._stays = False
            self._kept.release()

    def was_used(self, count: int) -> None:
        """Note that a request of `count` bytes was served. Free the memory, unless the buffer is one of those that
        stay."""
        if self._budget.is_short:
            if count > _PAGE or self._stays:
                self.free()
        elif count > _PAGE and not self._stays:
            self._stays = self._kept.acquire(blocking=False)
            if not self._stays:
                self.free()

    def __del__(self) -> None:
        if self._stays:
            self._kept.release()


class Buffers:
    """The buffers of all threads that serve one device."""

    def __init__(self, request_size: int, room_size: int, budget: MemoryBudget) -> None:
        """`room_size`: of a header and file bytes; `budget`: tells when decoders need all memory."""
        self._request_size = request_size
        self._room_size = room_size
        self._kept = threading.Semaphore(_KEPT)
        self._rooms: deque[memoryview] = deque(maxlen=_KEPT)
        self._budget = budget
        budget.share(0, self._free_rooms)  # a share of nothing: to be told when caches must shrink

    def for_requests(self) -> RequestBuffer:
        """Return a new buffer for one thread."""
        return RequestBuffer(self._request_size, self._kept, self._budget)

    def take_room(self) -> memoryview:
        """Return a buffer for a header and file bytes; the one used last, if one is free."""
        try:
            return self._rooms.pop()
        except IndexError:
            return page_buffer(self._room_size)

    def give_back(self, room: memoryview) -> None:
        """Give back such a buffer."""
        if not self._budget.is_short:
            self._rooms.append(room)

    def _free_rooms(self) -> None:
        self._rooms.clear()
