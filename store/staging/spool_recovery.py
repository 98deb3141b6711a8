"""What a process left in its spool, which another takes over: nothing that was uploaded is lost, or named otherwise."""

from __future__ import annotations

import itertools
import os
import stat
from contextlib import suppress

from bentofs.store.model.model import MODEL_YAML
from bentofs.store.util.fs import sync_path


def adopt(dead: str, spool: str) -> None:
    """Move the uploads of a dead session into the spool of a living one. What is in a folder is an upload, too, empty
    files included."""
    remove_empty(dead)
    for name in os.listdir(dead):
        os.rename(os.path.join(dead, name), os.path.join(spool, _free_name(spool, name)))
    sync_path(spool)


def adopt_ranges(dead: str, ranges: str, spool: str, *, hold: bool) -> None:
    """Move what a dead session knew of the written bytes of its uploads, once these are in `spool`.

    `hold`: whether it still holds; else nothing counts as written of the uploads concerned.
    """
    try:
        names = os.listdir(dead)
    except FileNotFoundError:
        return  # a release of bentofs that kept none
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
    """Move an uploaded folder to where it was in a spool: the folders around it are there already, or come with it."""
    for name in os.listdir(taken):
        path, there = os.path.join(taken, name), os.path.join(spool, name)
        is_around = not os.path.lexists(os.path.join(path, MODEL_YAML)) and os.path.isdir(path)
        if is_around and os.path.isdir(there) and not os.path.islink(there):
            put_back(path, there)
        else:
            os.rename(path, os.path.join(spool, _free_name(spool, name)))
    sync_path(spool)


def remove_empty(spool: str) -> None:
    """Remove empty files, folders, and what is neither, of the top level of a spool."""
    for name in os.listdir(spool):
        path = os.path.join(spool, name)
        look = os.lstat(path)
        if stat.S_ISDIR(look.st_mode):
            with suppress(OSError):  # it is not empty
                os.rmdir(path)
        elif not stat.S_ISREG(look.st_mode) or look.st_size == 0:
            os.unlink(path)


def _free_name(folder: str, name: str) -> str:
    """The name, or one with a number before its first dot: what the name says of the file stays at its ends."""
    free = name
    stem, dot, rest = name[1:].partition(".")
    for number in itertools.count(2):
        if not os.path.lexists(os.path.join(folder, free)):
            break
        free = f"{name[0]}{stem}-{number}{dot}{rest}"
    return free
