"""Show undecided files of `incoming/` in such a way that every tool sends them again. Such a file is no model, or not
yet.

Tools judge that a file is up to date by its size and mtime (rsync, rclone), by its mtime alone (`cp -u`), or by its
size alone (`rsync --append-verify`, `curl -C -`, FTP clients). So an undecided file is shown older than any source.
Unless a program is writing it, it is also shown some bytes shorter than it is. A tool that resumes sends those bytes
again. Closing the file then decides it again. All bytes stay in place: reading to the end gives them.

A program may open such a file to append (O_APPEND). Either it resumes at the size that it was shown, like curl. Or it
goes on behind the last byte and does not look, like `cat part >> file`. The bytes tell which (`append_offset`).

The mark lies in the mode of the spooled file, so it survives crashes and renames.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import os
import stat

MARK = stat.S_ISVTX  # has no other meaning for a file
_SECOND = 1_000_000_000
_HIDDEN = 512  # bytes: enough to tell them from the bytes that follow


def is_undecided(look: os.stat_result) -> bool:
    """Return True if a spooled file has the mark."""
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


class UndecidedMark:
    """The mark of one open file, and whether it is shown shorter: while nobody writes to it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_set = is_undecided(os.fstat(descriptor))
        self._is_short = self._is_set

    @property
    def is_set(self) -> bool:
        """True if the file must not look complete to its tool."""
        return self._is_set

    @property
    def is_short(self) -> bool:
        """True if the file is shown shorter than it is."""
        return self._is_short

    def set(self, undecided: bool) -> None:
        """Set or clear the mark."""
        if undecided != self._is_set:
            set_undecided(self._descriptor, undecided)
            self._is_set = undecided
        self._is_short = self._is_short and undecided

    def show_short(self) -> None:
        """Show the file shorter, while the mark is set."""
        self._is_short = self._is_set

    def show_whole(self) -> None:
        """Show the true size: a program writes to the file."""
        self._is_short = False


def append_offset(descriptor: int, view: memoryview, offset: int) -> int:
    """Return the offset at which the first bytes of an appending program belong. The kernel puts them at the shown end.
    They belong there if they repeat the hidden bytes. Otherwise they belong at the true end."""
    look = os.fstat(descriptor)
    if offset != shown_size(look):
        return look.st_size
    hidden = os.pread(descriptor, min(len(view), look.st_size - offset), offset)
    return offset if view[: len(hidden)] == hidden else look.st_size
