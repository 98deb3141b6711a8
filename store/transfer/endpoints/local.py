"""This machine's own files: written beside under another name, synced, and renamed.

Targets that a rename cannot replace are written into (`store.transfer.endpoints.special`).

Threading: same as `Target`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from bentofs.store.errors import TargetExistsError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.transfer.endpoints.base import CHUNK, Progress
from bentofs.store.transfer.endpoints.parts import new_part, remove_left_behind
from bentofs.store.transfer.endpoints.special import is_mount_point, open_special, own_descriptor
from bentofs.store.util.aligned_buffer import page_buffer
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.display import printable
from bentofs.store.util.fs import sync_path, writing

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DENIED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EBUSY,
)  # errors of a directory whose files may still be writable


class LocalEndpoint:
    """All of this machine as a target. Paths are absolute."""

    def __init__(self, stops: CancelTokens = (), tidied: set[str] | None = None) -> None:
        """`stops`: once one is set, waiting for the reader of a pipe ends. `tidied`: directories from which the remains
        of killed exports were removed already; more are added."""
        self._stops = stops
        self._tidied = set() if tidied is None else tidied

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """Do what `Target.write` does, and make missing directories. A link stays; its target is replaced.

        Pipes, devices and open files of this process are written into. A file that is a mount point, or lies in a
        read-only directory, is emptied and then written into: an error leaves it empty.
        """
        descriptor = own_descriptor(path)
        if descriptor is not None:
            write_out(descriptor, path, content, progress)
            return
        path = os.path.realpath(path)
        is_there = os.path.exists(path)
        if is_there and not os.path.isfile(path):
            with writing(path):
                descriptor = open_special(path, self._stops)
            try:
                write_out(descriptor, path, content, progress)
            finally:
                os.close(descriptor)
            return
        if is_there and is_mount_point(path):
            self._overwrite(path, content, progress)
            return
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(count)

        try:
            self._replace(path, content, advance)
        except OSError as error:  # no file can be made beside it, or it cannot be renamed
            if error.errno not in _DENIED or not is_there or not os.access(path, os.W_OK, effective_ids=True):
                with writing(path):
                    raise
            progress(-done)
            self._overwrite(path, content, progress)

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """Do what `Target.write_folder` does. The directory appears all at once."""
        path = os.path.realpath(path.rstrip("/") or "/")
        parent = os.path.dirname(path)
        with ExitStack() as stack:
            _make_folders(parent)
            with writing(path):
                hidden, descriptor = stack.enter_context(new_part(path, 0o777, is_folder=True))
            self._tidy(parent, descriptor)
            for member in members:
                place = os.path.join(hidden, member.path)
                with writing(place):
                    if member.is_folder:
                        os.mkdir(place)
                        continue
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                self._write_new(place, member.content, progress, 0o777 if member.executable else 0o666)
            with writing(path):
                for folder, _, _ in os.walk(hidden):
                    sync_path(folder)
                try:
                    os.rename(hidden, path)  # an empty directory may be there
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                    raise TargetExistsError(
                        f"{printable(path)} is not empty: name a directory that is not there yet"
                    ) from None
                _sync_folder(parent)

    def close(self) -> None:
        """See `Target.close`."""

    def _replace(self, path: str, content: Piece, progress: Progress) -> None:
        """Write a file whole or not at all.

        Raises:
            OSError: no file can be made beside it, or it cannot be renamed.
        """
        parent = os.path.dirname(path)
        _make_folders(parent)
        with new_part(path, 0o666) as (part, descriptor):
            self._tidy(parent, descriptor)
            with writing(path):
                _reserve(descriptor, content.length)
            write_out(descriptor, path, content, progress)
            with writing(path):
                os.fsync(descriptor)
            os.rename(part, path)
            with writing(path):
                _sync_folder(parent)

    def _overwrite(self, path: str, content: Piece, progress: Progress) -> None:
        """Write a file in place, as cp does. It is left empty if that fails."""
        with writing(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with writing(path):
                _reserve(descriptor, content.length)
            write_out(descriptor, path, content, progress)
            with writing(path):
                os.fsync(descriptor)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            raise
        finally:
            os.close(descriptor)

    def _write_new(self, path: str, content: Piece | None, progress: Progress, mode: int) -> None:
        with writing(path):
            descriptor = os.open(path, _NEW_FILE, mode)
        try:
            if content is not None:
                with writing(path):
                    _reserve(descriptor, content.length)
                write_out(descriptor, path, content, progress)
            with writing(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _tidy(self, folder: str, part: int) -> None:
        """Remove the remains of killed exports from a directory. The new part's time is by the clock of its file
        system."""
        if folder not in self._tidied:
            self._tidied.add(folder)
            remove_left_behind(folder, os.fstat(part).st_mtime)


def write_out(descriptor: int, path: str, content: Piece, progress: Progress) -> None:
    """Write all of a piece to a file, or to anything else that takes bytes. `path`: for errors."""
    buffer = page_buffer(min(CHUNK, content.length))
    done = 0
    while done < content.length:
        view = buffer[: content.length - done]
        content.read_into([view], done)
        done += len(view)
        progress(len(view))
        while view:
            with writing(path):
                view = view[os.write(descriptor, view) :]


def _make_folders(path: str) -> None:
    """Make a directory and its parents, unless they are there."""
    with writing(path):
        try:
            os.makedirs(path, exist_ok=True)
        except FileExistsError:  # something is there that is no directory
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None


def _reserve(descriptor: int, length: int) -> None:
    """Reserve the space, so that a full disk is known at the start and not at the end."""
    try:
        os.posix_fallocate(descriptor, 0, length)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def _sync_folder(path: str) -> None:
    """Do what `sync_path` does, for a directory in which a file has appeared. The directory may be writable but not
    readable."""
    with suppress(PermissionError):
        sync_path(path)
