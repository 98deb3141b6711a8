"""What glibc does with memory that is freed. By itself it keeps it for each thread apart, and ever more of it."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # malloc.h


def give_memory_back() -> None:
    """Have large blocks returned to the system when they are freed. Compressed chunks are such blocks, libfuse's
    buffers (128 KiB) are not."""
    _set(_MMAP_THRESHOLD, 192 << 10)


def share_memory() -> None:
    """Have all threads take from the same two heaps: a transfer fetches by many threads, none of which may keep what
    the others could use. Only before there are threads."""
    _set(_ARENA_MAX, 2)


def _set(what: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(what, value)
