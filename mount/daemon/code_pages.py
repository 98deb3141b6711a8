"""Give the pages of program code back that a process needed only to start or once in a while.

The system counts them as the process's memory while they are mapped, though they are pages of files. It maps sixteen
around each one that is used. A page that is needed again is mapped again, in a microsecond, from the page cache.
"""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

_PAGE = mmap.PAGESIZE
_LOAD, _WRITABLE = 1, 2  # PT_LOAD, PF_W in elf.h


class _Segment(ctypes.Structure):
    """Elf64_Phdr."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("physical", ctypes.c_uint64),
        ("file_size", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64),
        ("alignment", ctypes.c_uint64),
    )


class _Library(ctypes.Structure):
    """The begin of dl_phdr_info."""

    _fields_ = (
        ("base", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("segments", ctypes.POINTER(_Segment)),
        ("count", ctypes.c_uint16),
    )


_Visitor = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)


def unmap_code() -> None:
    """Unmap the code and the constants of the program and its libraries. Their writable segments stay. Do nothing on a
    system of another kind."""
    library: Any = ctypes.CDLL(None)
    iterate, advise = getattr(library, "dl_iterate_phdr", None), getattr(library, "madvise", None)
    if iterate is None or advise is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        return
    found: list[tuple[int, int]] = []

    def visit(visited: Any, _size: int, _data: object) -> int:
        loaded = visited.contents
        for number in range(loaded.count):
            segment = loaded.segments[number]
            # Only the dynamic linker writes to constants, and those lie in a writable segment.
            if segment.kind == _LOAD and not segment.flags & _WRITABLE:
                start = loaded.base + segment.address
                found.append((start - start % _PAGE, start + segment.memory_size))
        return 0

    iterate(_Visitor(visit), None)
    for start, end in found:  # the vDSO refuses
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)
