"""Paths of members in archives: split into names, and refused if they could lead out of the model."""

from __future__ import annotations

import os

from bentofs.store.errors import UnsafeMemberError
from bentofs.store.storage.local_walk import MAX_DEPTH
from bentofs.store.util.display import printable
from bentofs.store.util.names import local_name

_MAX_NAME = 255  # bytes, on every file system of Linux
_MAX_PATH = 3584  # bytes: with the store's path before it, within the limit of system calls (4096)


def local_path(path: str) -> str:
    """Return a member's path, or a link's target, in this process's form of file names (`store.util.names`).

    Raises:
        UnsafeMemberError: no file can have that name.
    """
    try:
        return local_name(path)
    except UnicodeEncodeError:
        raise _not_encodable(path) from None


def member_parts(path: str) -> list[str]:
    """Return the names on a path, none for the top itself.

    Raises:
        UnsafeMemberError: the path leads out of the model, or no file can have it.
    """
    parts = [name for name in path.split("/") if name not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise UnsafeMemberError.in_archive(printable(path[:200]), "which leads out of the model")
    if "\0" in path:
        raise UnsafeMemberError.in_archive(printable(path[:200]), "which is not a name for a file")
    try:
        names = [os.fsencode(name) for name in parts]
    except UnicodeEncodeError:
        raise _not_encodable(path) from None
    if any(len(name) > _MAX_NAME for name in names) or sum(map(len, names)) + len(names) > _MAX_PATH:
        raise UnsafeMemberError(f"the archive holds a name that is too long, {printable(path[:200])!r}...")
    if len(parts) > MAX_DEPTH:
        raise UnsafeMemberError.in_archive(printable(path[:200]), f"more than {MAX_DEPTH} directories deep")
    return parts


def _not_encodable(path: str) -> UnsafeMemberError:
    return UnsafeMemberError.in_archive(printable(path[:200]), "which cannot be encoded")
