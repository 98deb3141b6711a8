"""Changes to the disk as the store needs them: durable, links never followed, the system's refusals as sentences."""

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

_PORTION = 1000  # names at a time
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC  # flags to open a folder with


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Within this, an OSError becomes a NoSpaceError or a StoreUnwritableError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{printable(path)} cannot be written: no space is left for you there") from error
        reason = os.strerror(error.errno or errno.EIO)
        raise StoreUnwritableError(f"{printable(path)} cannot be written: {reason}") from error


def sync_path(path: str) -> None:
    """Have a file's bytes, or a folder's entries, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot do it for folders
            raise
    finally:
        os.close(descriptor)


def make_folders(path: str) -> None:
    """Make a folder and those above it, durable, unless something stands at the path.

    Raises:
        NoSpaceError, StoreUnwritableError
    """
    if os.path.lexists(path):
        return
    above = os.path.dirname(path)
    make_folders(above)
    with writing(path):
        with suppress(FileExistsError):  # another process has made it just now
            os.mkdir(path)
        sync_path(os.path.realpath(above))


def _remove_folder(name: str, above: int | None) -> None:
    """Remove a folder and all that is in it, by portions: a folder may hold a million files.

    Looks again as long as there is less to be found each time: a listing may leave out what lay behind a removed entry,
    and FUSE and NFS keep a file that is open in its folder, under another name at each removal.
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
                        with suppress(FileNotFoundError):  # somebody else removes the same, as a session that ends
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
    """Remove whatever stands at a path, if anything does, without following links. What cannot be removed is named in
    the log."""
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            _remove_folder(path, None)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except (OSError, RecursionError) as error:
        # NFS and FUSE keep files that someone has open, under other names; they go when those are closed.
        is_open = isinstance(error, OSError) and error.errno == errno.ENOTEMPTY
        log.log(logging.INFO if is_open else logging.WARNING, "%s could not be removed: %s", printable(path), error)
