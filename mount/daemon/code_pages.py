"""Give the pages of program code back that a process needed only to start or once in a while.

The system counts them as the process's memory while they are mapped, though they are pages of files. It maps sixteen
around each one that is used. A page that is needed again is mapped again, in a microsecond, from the page cache.
"""

from __future__ import annotations

import ctypes
import mmap
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_SMAPS = "/proc/self/smaps"  # proc_pid_smaps(5)
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ([rwxps-]{4}) [0-9a-f]+ [0-9a-f:]+ \d+ +(/.*)?\n")


class _Mapping(NamedTuple):
    start: int
    end: int
    rights: str  # such as "r-xp"
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
        if mapping.file in programs and mapping.is_clean and mapping.rights[1] == "-" and mapping.rights[3] == "p":
            advise(ctypes.c_void_p(mapping.start), ctypes.c_size_t(mapping.end - mapping.start), mmap.MADV_DONTNEED)


def _mappings(smaps: Iterator[str]) -> Iterator[_Mapping]:
    """Yield the mappings of files."""
    head: re.Match[str] | None = None
    for line in smaps:
        if found := _MAPPING.match(line):
            head = found
        elif head is not None and head[4] is not None and line.startswith("Anonymous:"):
            yield _Mapping(int(head[1], 16), int(head[2], 16), head[3], head[4], line.split()[1] == "0")
