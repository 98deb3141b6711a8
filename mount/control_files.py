"""Control files: what downloaders keep beside a file while they write it, and remove once it is whole.

A file with such a file beside it is on its way, whatever its own name says. The control file itself is no archive,
unless it holds one: any name may be an archive's.

Paths are those below `incoming/`, unless they are said to be on disk. Knows no FUSE.
"""

from __future__ import annotations

import os

from store.archive.decode import Kind, kind_of

_SUFFIXES = (".aria2", ".aria2__temp", ".lftp-pget-status", ".st")  # the last one is axel's
_HEAD = 512  # bytes that tell what a file is


def controlled_path(path: str) -> str | None:
    """Return the file that a control file of this name is of; None if no control file has such a name."""
    suffix = next((suffix for suffix in _SUFFIXES if path.endswith(suffix)), "")
    return path[: -len(suffix)] if suffix and os.path.basename(path) != suffix else None


def has_control_file(path_on_disk: str) -> bool:
    """Return whether a control file lies beside a file."""
    return any(_is_control_file(path_on_disk + suffix) for suffix in _SUFFIXES)


def holds_archive(descriptor: int) -> bool:
    """Return whether a file begins as an archive does."""
    head = os.pread(descriptor, _HEAD, 0)
    return any(head) and kind_of(head) is not Kind.UNKNOWN


def _is_control_file(path_on_disk: str) -> bool:
    try:
        descriptor = os.open(path_on_disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not holds_archive(descriptor)
    except IsADirectoryError:
        return False
    finally:
        os.close(descriptor)
