"""This machine's own files: written beside under another name, synced, and renamed.

Threading: as `Target`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress

from store.archive.members import Member
from store.archive.pieces import Piece
from store.endpoints.base import CHUNK, Progress
from store.endpoints.beside import beside
from store.errors import TargetExistsError
from store.page_buffer import page_buffer
from store.text import printable
from store.writing import remove_tree, sync_path, writing

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalEndpoint:
    """All of this machine, as a target; paths are absolute."""

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """As `Target.write`. Folders that are missing are made. What a link leads to is replaced, not the link; what is
        no regular file, as a pipe, is written into."""
        path = os.path.realpath(path)
        parent = os.path.dirname(path)
        if os.path.exists(path) and not os.path.isfile(path):
            self._write_into(path, content, progress)
            return
        with writing(path):
            os.makedirs(parent, exist_ok=True)
        hidden = beside(path)
        try:
            self._write_new(hidden, content, progress, 0o666)
            with writing(path):
                os.rename(hidden, path)
                _sync_folder(parent)
        except BaseException:
            remove_tree(hidden)
            raise

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """As `Target.write_folder`; it appears all at once."""
        path = os.path.realpath(path.rstrip("/") or "/")
        parent = os.path.dirname(path)
        with writing(path):
            os.makedirs(parent, exist_ok=True)
            hidden = beside(path)
            os.mkdir(hidden)
        try:
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
                    os.rename(hidden, path)  # an empty folder may be there
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                    raise TargetExistsError(
                        f"{printable(path)} is not empty: name a folder that is not there yet"
                    ) from None
                _sync_folder(parent)
        except BaseException:
            remove_tree(hidden)
            raise

    def close(self) -> None:
        """As `Target.close`."""

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

    def _write_into(self, path: str, content: Piece, progress: Progress) -> None:
        with writing(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            write_out(descriptor, path, content, progress)
        finally:
            os.close(descriptor)


def write_out(descriptor: int, path: str, content: Piece, progress: Progress) -> None:
    """Write all of a piece to a file, or to whatever takes bytes; `path`: for errors."""
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


def _reserve(descriptor: int, length: int) -> None:
    """That there is no room is better known at the start than at the end."""
    try:
        os.posix_fallocate(descriptor, 0, length)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise


def _sync_folder(path: str) -> None:
    """As `sync_path`, of a folder in which a file has appeared: it may be one that can be written but not read."""
    with suppress(PermissionError):
        sync_path(path)
