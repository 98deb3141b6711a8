"""Show files of `incoming/` that are no model, not yet or not at all, so that every tool sends them again.

Tools take a file for up to date by its size and mtime (rsync, rclone), by its mtime alone (`cp -u`), or by its size
alone (`rsync --append-verify`, `curl -C -`, FTP clients). So an undecided file is shown older than any source and,
unless a program is writing it, some bytes shorter than it is. A tool that resumes sends those again, and closing the
file decides it again. All bytes stay where they are: reading to the end gives them.

A program that opens such a file to append (O_APPEND) either resumes by the size that it was shown, as curl does, or
goes on behind the last byte without a look, as `cat part >> file` does. The bytes tell which (`append_offset`).

The mark lies in the mode of the spooled file, so it survives crashes and renames.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import os
import stat

MARK = stat.S_ISVTX  # of no other meaning for a file
_SECOND = 1_000_000_000
_HIDDEN = 512  # bytes: enough to tell them from those that follow


def is_undecided(look: os.stat_result) -> bool:
    """Return whether a spooled file bears the mark."""
    return bool(look.st_mode & MARK)


def set_undecided(descriptor: int, undecided: bool) -> None:
    """Set or clear the mark of an open file."""
    look = os.fstat(descriptor)
    if is_undecided(look) != undecided:
        os.fchmod(descriptor, stat.S_IMODE(look.st_mode) ^ MARK)


def shown_size(look: os.stat_result) -> int:
    """Return the size to show for an undecided file that nobody writes."""
    return look.st_size - min(_HIDDEN, (look.st_size + 1) // 2)


def shown_mtime_ns(look: os.stat_result) -> int:
    """Return the mtime to show for an undecided file: the epoch, or earlier if its own is not later."""
    return min(0, look.st_mtime_ns - _SECOND)


def append_offset(descriptor: int, view: memoryview, offset: int) -> int:
    """Return where the first bytes of a program that appends belong, which the kernel puts at the end that was shown:
    there if they are the hidden ones again, else at the true end."""
    look = os.fstat(descriptor)
    if offset != shown_size(look):
        return look.st_size
    hidden = os.pread(descriptor, min(len(view), look.st_size - offset), offset)
    return offset if view[: len(hidden)] == hidden else look.st_size
