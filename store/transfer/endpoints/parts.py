"""Parts: local files and directories that an export is still writing, beside its target and under a hidden name.

An export holds a lock on its part for as long as it lives. The kernel removes the lock when the process ends, however
it ends. So the next export to the directory can find and remove the part of a killed export. A lock works only within
one running system: a file server may not pass it on, and another machine may write there. So the part's name says which
running system writes it. A part of another system is removed when nothing in it has changed for a day.

Threading: any thread, any number of processes and machines.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from bentofs.store.transfer.endpoints.beside import beside
from bentofs.store.util.display import printable
from bentofs.store.util.fs import remove_tree

log = logging.getLogger(__name__)

_NAME = re.compile(r"\..{1,50}\.(?:[0-9a-f]{8}-)?[0-9a-f]{12}\.part", re.DOTALL)  # older releases have no system in it
_FILE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # NFS locks only writable files
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 10
_STALE_SECONDS = 24 * 3600.0


@contextmanager
def new_part(path: str, mode: int, *, is_folder: bool = False) -> Iterator[tuple[str, int]]:
    """Make a part for the target at `path`. Give its path and its descriptor. The part is removed if the context fails.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(_TRIES):
        part = beside(path, f"{_this_system()}-")
        if is_folder:
            os.mkdir(part, mode)
        try:
            descriptor = os.open(part, _FOLDER if is_folder else _FILE | os.O_CREAT | os.O_EXCL, mode)
        except FileNotFoundError:
            if is_folder and os.path.isdir(os.path.dirname(part)):
                continue  # another export took it for an abandoned one before it could be locked, and removed it
            raise
        if _is_locked(descriptor) and _still_stands(part, descriptor):
            break
        os.close(descriptor)  # another export took it for an abandoned one, and removes it
    else:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), part)
    try:
        yield part, descriptor
    except BaseException:
        remove_tree(part)
        raise
    finally:
        os.close(descriptor)


def remove_left_behind(folder: str, now: float) -> None:
    """Remove the parts of killed exports from a directory. `now`: by the clock of its file system."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _NAME.fullmatch(entry.name)]
    except OSError:
        return
    for name in names:
        part = os.path.join(folder, name)
        try:
            _remove_if_left_behind(part, now)
        except OSError as error:  # the part may belong to another user
            log.info("%s stays, though it may be left by a killed export: %s", printable(part), error)


def _remove_if_left_behind(part: str, now: float) -> None:
    look = os.lstat(part)
    if stat.S_ISDIR(look.st_mode):
        descriptor = os.open(part, _FOLDER)
    elif stat.S_ISREG(look.st_mode):
        descriptor = os.open(part, _FILE)
    else:
        return
    try:
        is_of_this_system = f".{_this_system()}-" in os.path.basename(part)[-32:]
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # the file system has no locks
            is_of_this_system = False
        if not _still_stands(part, descriptor):
            return
        if is_of_this_system or now - _last_change(part) > _STALE_SECONDS:
            log.info("removed %s, which a killed export left", printable(part))
            remove_tree(part)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Lock a new part. False if another process has locked it first. Without locks it counts as locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.info("a part of an export cannot be locked: %s", error)
    return True


def _still_stands(path: str, descriptor: int) -> bool:
    """Tell whether the open file still has its name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False


def _last_change(part: str) -> float:
    """Return the time of the last change in a part."""
    newest = os.lstat(part).st_mtime
    for folder, folders, files in os.walk(part):
        for name in [*folders, *files]:
            newest = max(newest, os.lstat(os.path.join(folder, name)).st_mtime)
    return newest


@cache
def _this_system() -> str:
    """Return a name of this running system, in eight digits. No other system has the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        boot = secrets.token_bytes(16)
    return hashlib.sha256(boot).hexdigest()[:8]
