"""A store in a directory of this machine.

Every path is opened component by component below the root, without following links. So swapping a directory for a link
reaches nothing outside the store. Files are opened non-blocking and checked to be regular. The root is opened anew each
time, so that a store that was deleted and recreated is found.
"""

from __future__ import annotations

import errno
import os
import stat
import weakref
from collections.abc import Callable, Iterable, Sequence

from bentofs.store.errors import (
    BadModelError,
    NotFoundError,
    SourceChangedError,
    StoreDeniedError,
    StoreError,
    StoreUnreadableError,
)
from bentofs.store.storage.base import Identity, Kind, Status, Totals, Usage
from bentofs.store.storage.entries import Entries
from bentofs.store.storage.local_file import FILE, KeptFolder, LocalFile, is_same
from bentofs.store.storage.local_recheck import is_unchanged
from bentofs.store.storage.local_walk import FOLDER, Walk
from bentofs.store.storage.timestamps import is_settled
from bentofs.store.util.display import printable

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)  # ENXIO: it is a socket


class LocalStorage:
    """A directory that holds `<name>/<version>/model.yaml`."""

    has_deep_identities = False
    commits_by_model_yaml = False  # BentoML writes it first
    has_page_cache = True
    reads_ahead = False
    lists_without_requests = True

    def __init__(self, root: str, *, follow_links: bool = False) -> None:
        """`follow_links`: follow links that lead out of a model, instead of refusing them."""
        self._root = os.path.abspath(root)
        self._follow_links = follow_links
        self._step = FOLDER if follow_links else FOLDER | os.O_NOFOLLOW
        self._last: tuple[str, Callable[[], KeptFolder | None]] = ("", lambda: None)

    @property
    def location(self) -> str:
        return self._root

    @property
    def folder(self) -> str:
        return self._root

    def check_writable(self) -> None:
        """Do nothing: each write checks the permissions."""

    def prepare(self, names: Sequence[str]) -> None:
        """Do nothing: local calls need no prefetch."""

    def prepare_models(self, paths: Sequence[str], files: Sequence[str]) -> None:
        """Do nothing: local calls need no prefetch."""

    def pins_content(self, path: str, identity: Identity, read_ns: int) -> bool:  # noqa: ARG002 - times decide
        return is_settled(identity.ctime_ns, read_ns)

    def list_folder(self, path: str) -> list[tuple[str, Kind]]:
        with self.look_into(path) as folder:
            return folder.listing()

    def status(self, path: str) -> Status:
        parent, _, name = path.rpartition("/")
        with LocalFolder(self, parent, path) as folder:
            return _status(os.stat(name or ".", dir_fd=folder.descriptor, follow_symlinks=self._follow_links))

    def look_into(self, path: str) -> LocalFolder:
        return LocalFolder(self, path, path)

    def read_small(self, path: str, limit: int) -> bytes:
        parent, _, name = path.rpartition("/")
        with LocalFolder(self, parent, path) as folder:
            flags = FILE & ~os.O_NOFOLLOW if self._follow_links else FILE
            look = _status(os.stat(name, dir_fd=folder.descriptor, follow_symlinks=self._follow_links))
            if look.kind not in (Kind.FILE, Kind.LINK):  # opening a link fails as not found
                raise BadModelError(f"{self._show(path)} is not a regular file")
            # Non-blocking, in case it became a pipe just now. Reading a directory or socket fails.
            with os.fdopen(os.open(name, flags, dir_fd=folder.descriptor), "rb") as file:
                content = file.read(limit + 1)
        if len(content) > limit:
            raise BadModelError(f"{self._show(path)} is larger than {limit:,} bytes")
        return content

    def walk(self, path: str) -> tuple[Entries, int]:
        with self.look_into(path) as folder:
            walk = Walk(self._root, path, self._open_folder, self._show, follow_links=self._follow_links)
            return walk.run(folder.descriptor)

    def totals(self, path: str) -> Totals:
        entries = self.walk(path)[0]
        return Totals(entries.size, len(entries) - entries.folder_count, None)

    def is_unchanged(self, path: str, entries: Entries) -> bool:
        if not entries.folder_looks:
            return False
        try:
            with self.look_into(path) as folder:
                return is_unchanged(folder.descriptor, entries)
        except StoreError:
            return False

    def open_file(self, source: str, identity: Identity) -> LocalFile:
        parent, _, name = source.rpartition("/")
        path, last = self._last
        folder = last() if path == parent else None
        if folder is not None:
            try:
                return self._open_in(folder, name, source, identity)
            except (OSError, SourceChangedError):
                pass  # the directory may have been replaced
        try:
            folder = self._folder_of(source)
            self._last = (parent, weakref.ref(folder))
            return self._open_in(folder, name, source, identity)
        except OSError as error:
            folder = None  # the error, if kept, must not keep the directory open
            failure = self._error(source, error.with_traceback(None))
            if isinstance(failure, NotFoundError):
                raise SourceChangedError(f"{self._show(source)} is gone") from None
            raise failure from error

    def _folder_of(self, source: str) -> KeptFolder:
        """Open the directory of a source."""
        parent = source.rpartition("/")[0]
        is_behind_link = source.startswith("/")
        return KeptFolder(os.open(parent or "/", FOLDER) if is_behind_link else self._open_folder(parent))

    def _open_in(self, folder: KeptFolder, name: str, source: str, identity: Identity) -> LocalFile:
        file = LocalFile(os.open(name, FILE, dir_fd=folder.descriptor), identity, self._show, source, folder)
        file.check()
        return file

    def read_whole(self, files: Iterable[tuple[str, Identity, memoryview]]) -> None:
        folder: KeptFolder | None = None
        at: str | None = None
        for source, identity, view in files:
            parent, _, name = source.rpartition("/")
            try:
                if folder is None or at != parent:
                    folder, at = self._folder_of(source), parent
                descriptor = os.open(name, FILE, dir_fd=folder.descriptor)
                try:
                    got = os.preadv(descriptor, [view], 0)
                    # Check after the read, not before: then the bytes read belong to the identity.
                    is_whole = got == len(view) and is_same(os.fstat(descriptor), identity)
                finally:
                    os.close(descriptor)
            except OSError:
                is_whole = False
            if not is_whole:  # after a short read, or in a replaced directory, this reads it; else it raises the error
                self.open_file(source, identity).read_into([view], 0)

    def usage(self) -> Usage:
        with self.look_into("") as folder:
            figures = os.fstatvfs(folder.descriptor)
        return Usage(
            figures.f_bsize,
            figures.f_frsize,
            figures.f_blocks,
            figures.f_bfree,
            figures.f_bavail,
            figures.f_files,
            figures.f_ffree,
            figures.f_namemax,
        )

    def _open_folder(self, path: str) -> int:
        first, *rest = path.split("/")
        # Links above the root belong to the user and are followed. Below it, the flags decide.
        descriptor = os.open(f"{self._root}/{first}", self._step) if first else os.open(self._root, FOLDER)
        for name in rest:
            try:
                below = os.open(name, self._step, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor

    def _error(self, path: str, error: OSError) -> StoreError:
        if error.errno in _GONE and path:
            if os.path.isdir(self._root):
                return NotFoundError(f"{self._show(path)} is not there")
            path = ""  # the store itself is missing: blame its root
        reason = os.strerror(error.errno or errno.EIO)
        kind = StoreDeniedError if isinstance(error, PermissionError) else StoreUnreadableError
        return kind(f"{self._show(path)} cannot be read: {reason}")

    def _show(self, path: str) -> str:
        return printable(os.path.join(self._root, path))

    def _kind_of(self, entry: os.DirEntry[str]) -> Kind:
        try:
            if entry.is_dir(follow_symlinks=self._follow_links):
                return Kind.FOLDER
            if entry.is_file(follow_symlinks=self._follow_links):
                return Kind.FILE
        except OSError:  # a dangling link stays a link
            pass
        return Kind.LINK if entry.is_symlink() else Kind.SPECIAL


class LocalFolder:
    """A directory below the root, open while the context lasts. It turns an OSError in the context into a StoreError.
    It has slots, since looking at 10,000 names opens as many."""

    __slots__ = ("_path", "_storage", "_subject", "descriptor")

    def __init__(self, storage: LocalStorage, path: str, subject: str) -> None:
        """`subject`: the path that errors name."""
        self._storage = storage
        self._path = path
        self._subject = subject

    def __enter__(self) -> LocalFolder:
        try:
            self.descriptor = self._storage._open_folder(self._path)
        except OSError as error:
            raise self._storage._error(self._subject, error) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        os.close(self.descriptor)
        if isinstance(error, OSError):
            raise self._storage._error(self._subject, error) from error

    @property
    def identity(self) -> Identity:
        return Identity.of(os.fstat(self.descriptor))

    def listing(self) -> list[tuple[str, Kind]]:
        with os.scandir(self.descriptor) as entries:
            return [(entry.name, self._storage._kind_of(entry)) for entry in entries]

    def statuses(self, paths: Sequence[str]) -> Sequence[Status | StoreError]:
        looks: list[Status | StoreError] = []
        descriptor, follow = self.descriptor, self._storage._follow_links
        for path in paths:
            try:
                looks.append(_status(os.stat(path, dir_fd=descriptor, follow_symlinks=follow)))
            except OSError as error:
                looks.append(self._storage._error(f"{self._path}/{path}", error))
        return looks


def _status(look: os.stat_result) -> Status:
    mode = look.st_mode
    if stat.S_ISREG(mode):
        kind = Kind.FILE
    elif stat.S_ISDIR(mode):
        kind = Kind.FOLDER
    else:
        kind = Kind.LINK if stat.S_ISLNK(mode) else Kind.SPECIAL
    return tuple.__new__(Status, (kind, bool(mode & stat.S_IXUSR), Identity.of(look)))
