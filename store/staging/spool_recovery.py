"""Recovery of a dead process's spool: another process takes over its uploads. No upload is lost, and each keeps its
name; a number is added only if that name is in use."""

from __future__ import annotations

import itertools
import os
import stat
from contextlib import suppress

from bentofs.store.model.model import MODEL_YAML
from bentofs.store.util.fs import sync_path


def adopt(dead: str, spool: str) -> None:
    """Move the uploads of a dead session into the spool of a living one. Files in a directory are uploads, too, even
    empty ones."""
    remove_empty(dead)
    for name in os.listdir(dead):
        os.rename(os.path.join(dead, name), os.path.join(spool, _free_name(spool, name)))
    sync_path(spool)


def adopt_ranges(dead: str, ranges: str, spool: str, *, hold: bool) -> None:
    """Move a dead session's records of written bytes, once its uploads are in `spool`.

    `hold`: True if the records are still valid; otherwise no byte of these uploads counts as written.
    """
    try:
        names = os.listdir(dead)
    except FileNotFoundError:
        return  # left by a release of bentofs that kept no records
    if not names:
        return
    uploads = {
        str(os.lstat(os.path.join(folder, file)).st_ino) for folder, _, files in os.walk(spool) for file in files
    }
    for name in uploads.intersection(names):
        os.rename(os.path.join(dead, name), os.path.join(ranges, name))
        if not hold:
            os.truncate(os.path.join(ranges, name), 0)
    sync_path(ranges)


def put_back(taken: str, spool: str) -> None:
    """Move an uploaded directory back to its place in a spool. The directories around it are there, or are moved
    too."""
    for name in os.listdir(taken):
        path, there = os.path.join(taken, name), os.path.join(spool, name)
        is_around = not os.path.lexists(os.path.join(path, MODEL_YAML)) and os.path.isdir(path)
        if is_around and os.path.isdir(there) and not os.path.islink(there):
            put_back(path, there)
        else:
            os.rename(path, os.path.join(spool, _free_name(spool, name)))
    sync_path(spool)


def remove_empty(spool: str) -> None:
    """Remove empty files, empty directories, links and special files at the top level of a spool."""
    for name in os.listdir(spool):
        path = os.path.join(spool, name)
        look = os.lstat(path)
        if stat.S_ISDIR(look.st_mode):
            with suppress(OSError):  # it is not empty
                os.rmdir(path)
        elif not stat.S_ISREG(look.st_mode) or look.st_size == 0:
            os.unlink(path)


def _free_name(folder: str, name: str) -> str:
    """Return the name, or one with a number before its first dot: so the name keeps its beginning and its suffixes."""
    free = name
    stem, dot, rest = name[1:].partition(".")
    for number in itertools.count(2):
        if not os.path.lexists(os.path.join(folder, free)):
            break
        free = f"{name[0]}{stem}-{number}{dot}{rest}"
    return free
