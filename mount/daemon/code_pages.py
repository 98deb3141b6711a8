"""Give the pages of program code back that a process needed only to start or once in a while.

The system counts them as the process's memory while they are mapped, though they are pages of files. It maps sixteen
around each one that is used. A page that is needed again is mapped again, in a microsecond, from the page cache.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

_SMAPS = "/proc/self/smaps"  # proc_pid_smaps(5)
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([rwxps-]{4}) ([0-9a-f]+) [0-9a-f:]+ (\d+) +(/.*)?\n")

_HEADER = struct.Struct("=16s16xQ14xHH6x")  # Elf64_Ehdr of elf(5): ident, where the segments begin, their size, count
_SEGMENT = struct.Struct("=IIQ16xQ16x")  # Elf64_Phdr: type, flags, offset, bytes in the file
_ELF64 = b"\x7fELF\x02"
_LOAD, _WRITABLE = 1, 2  # PT_LOAD, PF_W


class _Mapping(NamedTuple):
    start: int
    end: int
    rights: str  # such as "r-xp"
    offset: int  # in the file
    inode: int  # of the file
    file: str
    is_clean: bool  # holds only pages of the file


def unmap_code() -> None:
    """Unmap the code and the constants of the program and its libraries. Pages that the process has written to stay.
    Do nothing on a system of another kind."""
    advise: Any = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is None:
        return
    try:
        # Asking the dynamic linker instead would take its lock: an import that waits for Python's would never end.
        with open(_SMAPS, encoding="utf-8", errors="surrogateescape") as smaps:
            mappings = list(_mappings(smaps))
    except OSError:
        return
    # Files without code are data, and may be unmapped by another thread now. Programs and libraries never are.
    programs = {mapping.file for mapping in mappings if "x" in mapping.rights}
    for mapping in mappings:
        length = mapping.end - mapping.start
        if (
            mapping.file in programs
            and mapping.is_clean
            and mapping.rights[1] == "-"
            and mapping.rights[3] == "p"
            # Another thread may be loading a library: its first mapping covers the place of its data, too.
            and (mapping.offset, length) in _constant_segments(mapping.file, mapping.inode)
        ):
            advise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def _mappings(smaps: Iterator[str]) -> Iterator[_Mapping]:
    """Yield the mappings of files."""
    head: re.Match[str] | None = None
    for line in smaps:
        if found := _MAPPING.match(line):
            head = found
        elif head is not None and head[6] is not None and line.startswith("Anonymous:"):
            start, end, offset = (int(head[group], 16) for group in (1, 2, 4))
            yield _Mapping(start, end, head[3], offset, int(head[5]), head[6], line.split()[1] == "0")


@functools.lru_cache(maxsize=1024)
def _constant_segments(file: str, _inode: int) -> frozenset[tuple[int, int]]:
    """Return offset and length of each read-only segment of a program or library, as it is mapped. Empty for other
    files, and for files that cannot be read."""
    try:
        with open(file, "rb") as program:
            ident, begin, size, count = _HEADER.unpack(program.read(_HEADER.size))
            if not ident.startswith(_ELF64) or size != _SEGMENT.size:
                return frozenset()
            program.seek(begin)
            segments = list(_SEGMENT.iter_unpack(program.read(size * count)))
    except (OSError, struct.error):
        return frozenset()
    page = mmap.PAGESIZE
    return frozenset(
        (offset - offset % page, (offset % page + length + page - 1) // page * page)
        for kind, flags, offset, length in segments
        if kind == _LOAD and not flags & _WRITABLE
    )
