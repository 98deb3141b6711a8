"""BufferPool: buffers that are used again once nobody has a view of them.

A new buffer of this size is new pages, and to get these from the kernel takes longer than to copy the bytes into them.

Threading: one thread takes buffers. Any thread may drop the last view of one.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections import deque

BUFFER = 512 << 10  # bytes
_KEPT = 4  # free buffers: as many as wait for a digest, and one
_Array = ctypes.c_char * BUFFER


class BufferPool:
    """Buffers of `BUFFER` bytes, each at a page boundary. They go when the pool and all views of them have gone."""

    def __init__(self) -> None:
        self._free: deque[mmap.mmap] = deque(maxlen=_KEPT)

    def take(self) -> memoryview:
        """Return a buffer with any content. It comes back by itself with its last view."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = mmap.mmap(-1, BUFFER)
        array = _Array.from_buffer(memory)
        weakref.finalize(array, self._free.append, memory).atexit = False
        return memoryview(array).cast("B")
