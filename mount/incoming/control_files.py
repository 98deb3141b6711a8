"""Control files: downloaders keep such a file beside a file while they write it. They remove it once the file is whole.

A file with a control file beside it is still being written, whatever its own name says. The control file itself is no
archive, unless it holds one: an archive may have any name.

Paths are below `incoming/`, unless the name says that they are on disk. Knows no FUSE.
"""

from __future__ import annotations

import os

from bentofs.store.formats.read.detect import ArchiveKind, kind_of

_AXEL = ".st"  # weights may have this suffix, too: it counts only beside the file
_SUFFIXES = (".aria2", ".aria2__temp", ".lftp-pget-status", _AXEL)
_HEAD = 512  # bytes that tell the kind of a file


def controlled_path(path: str) -> str | None:
    """Return the path of the file that a control file of this name belongs to. Return None if no control file has such
    a name."""
    suffix = next((suffix for suffix in _SUFFIXES if path.endswith(suffix)), "")
    return path[: -len(suffix)] if suffix and os.path.basename(path) != suffix else None


def is_control_file(path_on_disk: str, descriptor: int) -> bool:
    """Return True if an open file is a control file."""
    controlled = controlled_path(path_on_disk)
    return (
        controlled is not None
        and (not path_on_disk.endswith(_AXEL) or os.path.lexists(controlled))
        and not _holds_archive(descriptor)
    )


def find_control_file(folder_on_disk: str) -> str | None:
    """Return the path on disk of a control file that lies beside its file, at or below a directory. Return None if
    there is none. Those of axel do not count: a model's file may have their suffix."""
    for folder, _, files in os.walk(folder_on_disk):
        for name in files:
            controlled = controlled_path(name)
            if controlled in files and not name.endswith(_AXEL):
                return os.path.join(folder, name)
    return None


def has_control_file(path_on_disk: str) -> bool:
    """Return True if a control file lies beside a file."""
    return any(_is_control_file(path_on_disk + suffix) for suffix in _SUFFIXES)


def _holds_archive(descriptor: int) -> bool:
    head = os.pread(descriptor, _HEAD, 0)
    return any(head) and kind_of(head) is not ArchiveKind.UNKNOWN


def _is_control_file(path_on_disk: str) -> bool:
    try:
        descriptor = os.open(path_on_disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _holds_archive(descriptor)
    except IsADirectoryError:
        return False
    finally:
        os.close(descriptor)
