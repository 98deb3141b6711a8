"""The report of an upkeep: one line for each thing that bentofs keeps on disk."""

from __future__ import annotations

import enum
import os
import stat
from contextlib import suppress
from typing import NamedTuple

_SQLITE = ("", "-wal", "-shm")  # the files of one database


class Kept(enum.Enum):
    """The kinds of things on disk."""

    INDEX = "index"
    BASELINE = "SHA-256 baseline"
    LOG = "log"
    STAGING = "staging area"
    DAMAGED = "damaged database"


class Line(NamedTuple):
    """One thing on disk."""

    kept: Kept
    path: str
    size: int  # bytes on disk, before the upkeep
    stale: int  # bytes that are stale, estimated for rows of a database
    left: int  # bytes on disk after the upkeep; `size` for a dry run
    note: str = ""  # why something is stale, or why it is kept


def size_of_database(path: str | os.PathLike[str]) -> int:
    """Return the bytes that a SQLite database takes on disk, its log included."""
    return sum(size_of_file(f"{os.fspath(path)}{suffix}") for suffix in _SQLITE)


def size_of_file(path: str | os.PathLike[str]) -> int:
    """Return the bytes that a regular file takes on disk; 0 if there is none."""
    with suppress(OSError):
        look = os.lstat(path)
        return look.st_blocks * 512 if stat.S_ISREG(look.st_mode) else 0
    return 0


def size_of_tree(path: str) -> int:
    """Return the bytes that all files below a directory take on disk. Follow no links."""
    return sum(size_of_file(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
