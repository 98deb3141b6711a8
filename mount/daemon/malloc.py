"""Tune glibc's heap: one heap for all threads, and freed memory goes back to the system.

By default glibc keeps a heap for every few threads, each as large as it has ever been.
"""

from __future__ import annotations

import ctypes
import gc
import threading
import time

from bentofs.mount.daemon.code_pages import unmap_code

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
# Bytes of a block that goes back to the system at once. ISA-L takes 344 KiB for each small file that it compresses:
# giving them back each time would cost a page fault for every 4 KiB.
_LARGE = 384 << 10
_FREE_AT_END = 1 << 20  # bytes at the heap's end that may be free; glibc's 128 KiB would cost the same
_TRIM_SECONDS = 2.0  # between two trims of a heap that is in use
_AGAIN_SECONDS = (0.1, 0.2, 0.3)  # from trim to trim, after memory was needed at once
_WORKED_SECONDS = 0.02  # of processor time; after less work there is nothing to trim


def give_memory_back() -> None:
    """Use one heap, and return large blocks to the system when they are freed. Compressed chunks are such blocks,
    libfuse's buffers (128 KiB) are not. Call it before any thread starts."""
    _set(_ARENA_MAX, 1)
    _return_large_blocks()


def share_memory() -> None:
    """Limit all threads to the same two heaps. A transfer fetches with many threads, and none may keep memory that the
    others could use. Call it before any thread starts."""
    _set(_ARENA_MAX, 2)
    _return_large_blocks()


def trim() -> None:
    """Return the heap's free pages to the system."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if malloc_trim is not None:
        malloc_trim(0)


class Trimmer:
    """Trims the heap repeatedly while the process works, and once after that."""

    def __init__(self) -> None:
        self._woken = threading.Event()  # memory is needed at once, or the thread must stop
        self._is_stopping = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="trimmer", daemon=True).start()

    def stop(self) -> None:
        self._is_stopping = True
        self._woken.set()

    def make_room(self) -> None:
        """Give back all that can be given, now and for the next second: much memory is needed."""
        gc.collect()
        _trim_all()
        self._woken.set()

    def _run(self) -> None:
        worked = 0.0
        while not self._is_stopping:
            if self._woken.wait(_TRIM_SECONDS):
                self._trim_again()
            elif time.process_time() - worked > _WORKED_SECONDS:
                trim()
                worked = time.process_time()

    def _trim_again(self) -> None:
        """Trim a few times: threads that were at work give their memory back a moment later."""
        for seconds in _AGAIN_SECONDS:
            self._woken.clear()
            if self._is_stopping or self._woken.wait(seconds):
                return  # to begin again, or to stop
            _trim_all()


def _trim_all() -> None:
    trim()
    unmap_code()


def _return_large_blocks() -> None:
    _set(_MMAP_THRESHOLD, _LARGE)
    _set(_TRIM_THRESHOLD, _FREE_AT_END)


def _set(what: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(what, value)
