"""Show undecided files of `incoming/` so that every tool sends them again. Such a file is no model, or not yet one.

Tools judge that a file is up to date by its size and mtime (rsync, rclone), by its mtime alone (`cp -u`), or by its
size alone (`rsync --append-verify`, `curl -C -`, FTP clients). So an undecided file is shown older than any source.
Unless a program is writing it, it is also shown some bytes shorter than it is. A tool that resumes sends those bytes
again. Closing the file then decides it again. All bytes stay in place: reading to the end gives them.

A program may open such a file to append (O_APPEND). There are two kinds of such programs:

- curl resumes at the size that it was shown. So its bytes begin with the hidden ones.
- `cat part >> file` does not look at the size. Its bytes belong behind the last byte.

The bytes tell which kind it is (`mount.incoming.append_place`): it resumes if its bytes begin with the hidden ones. So
the next bytes of a file must not be equal to its hidden bytes by a pattern, as in an array of equal numbers or a table
of equal records. Three rules ensure this:

- The hidden bytes are not a shorter word repeated. Proof: let the end of the file have a period, and let the next bytes
  be the hidden ones again. Then the length of the hidden bytes is a multiple of the period. So they are a shorter word
  repeated, which the rule excludes.
- The bytes before the hidden bytes are not equal to them.
- If the file ends with a run of equal bytes, the hidden bytes begin before the run. If the run is longer than 1 MiB,
  the whole file is hidden.

One case remains: a part that begins with all of the hidden bytes by chance. Then both kinds of programs would send the
same bytes. They count as sent again.

The mark lies in the mode of the spooled file, so it survives crashes and renames.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import os
import stat

MARK = stat.S_ISVTX  # has no other meaning for a file
_SECOND = 1_000_000_000
_HIDDEN = 512  # bytes to hide: no tool sends so few by chance
_LONGEST_RUN = 1 << 20  # bytes
_FIRST_LOOK = 1 << 14  # bytes; most runs are the end of a tar


def is_undecided(look: os.stat_result) -> bool:
    """Return True if a spooled file has the mark."""
    return bool(look.st_mode & MARK)


def set_undecided(descriptor: int, undecided: bool) -> None:
    """Set or clear the mark of an open file."""
    look = os.fstat(descriptor)
    if is_undecided(look) != undecided:
        os.fchmod(descriptor, stat.S_IMODE(look.st_mode) ^ MARK)


def shown_size(descriptor: int) -> int:
    """Return the size to show for an undecided file that nobody writes."""
    size = os.fstat(descriptor).st_size
    most = min(_HIDDEN, (size + 1) // 2)
    tail = os.pread(descriptor, 2 * most, max(0, size - 2 * most))
    for count in (most, most - 1, most - 2):
        if count > 0 and _is_telling(tail, count):
            return size - count
    return _before_run(descriptor, size)


def _is_telling(tail: bytes, count: int) -> bool:
    """Return True if the last `count` bytes repeat no shorter word, and do not repeat the bytes before them."""
    last = tail[-count:]
    return (last + last).find(last, 1) == count and tail[-2 * count : -count] != last


def _before_run(descriptor: int, size: int) -> int:
    """Return the offset of the byte before the run of equal bytes at the end; 0 if the run is too long."""
    count = _FIRST_LOOK
    while True:
        tail = os.pread(descriptor, count, max(0, size - count))
        rest = tail.rstrip(tail[-1:])
        if rest:
            return size - len(tail) + len(rest) - 1
        if count >= min(size, _LONGEST_RUN):
            return 0
        count *= 8


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
