"""File operations for the store: durable, without following links, with OSErrors translated into sentences."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

from bentofs.store.errors import NoSpaceError, StoreUnwritableError
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_PORTION = 1000  # names removed at a time
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # flags to open a directory


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn an OSError in the context into a NoSpaceError or a StoreUnwritableError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{printable(path)} cannot be written: no space is left for you there") from error
        reason = os.strerror(error.errno or errno.EIO)
        raise StoreUnwritableError(f"{printable(path)} cannot be written: {reason}") from error


def nearest_existing(path: str) -> str:
    """Return an absolute path, or the nearest one above it that exists."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def sync_path(path: str) -> None:
    """Sync a file's bytes, or a directory's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync directories
            raise
    finally:
        os.close(descriptor)


def make_folders(path: str) -> None:
    """Create a directory and its parents durably, unless something exists at the path.

    Raises:
        NoSpaceError, StoreUnwritableError
    """
    if os.path.lexists(path):
        return
    above = os.path.dirname(path)
    make_folders(above)
    with writing(path):
        with suppress(FileExistsError):  # another process has just created it
            os.mkdir(path)
        sync_path(os.path.realpath(above))


def _remove_folder(name: str, above: int | None) -> None:
    """Remove a directory and all its contents, in portions: a directory may hold a million files.

    List it again as long as each listing finds fewer entries. A listing may skip entries after a removed one. FUSE and
    NFS keep an open file in its directory, under another name after each removal.
    """
    descriptor = os.open(name, FOLDER, dir_fd=above)
    try:
        before, found = sys.maxsize, 0
        while before:
            with os.scandir(descriptor) as entries:
                while portion := [
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, _PORTION)
                ]:
                    found += len(portion)
                    for entry_name, is_folder in portion:
                        with suppress(FileNotFoundError):  # removed by another process, such as an ending session
                            if is_folder:
                                _remove_folder(entry_name, descriptor)
                            else:
                                os.unlink(entry_name, dir_fd=descriptor)
            if found >= before:
                break
            before, found = found, 0
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=above)


def remove_tree(path: str) -> None:
    """Remove the file or directory at a path, if there is one, without following links. Log entries that cannot be
    removed."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _remove_folder(path, None)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError) as error:
        # NFS and FUSE keep open files under other names. They disappear when they are closed.
        is_open = isinstance(error, OSError) and error.errno == errno.ENOTEMPTY
        log.log(logging.INFO if is_open else logging.WARNING, "%s could not be removed: %s", printable(path), error)
