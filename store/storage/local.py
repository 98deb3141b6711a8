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
from collections.abc import Callable, Sequence

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
from bentofs.store.storage.local_recheck import is_unchanged
from bentofs.store.storage.local_walk import FOLDER, Walk
from bentofs.store.util.display import printable

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
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
        self._last: tuple[str, Callable[[], _KeptFolder | None]] = ("", lambda: None)

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

    def has_etag(self, path: str) -> bool:  # noqa: ARG002 - no local file has one
        return False

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
            flags = _FILE & ~os.O_NOFOLLOW if self._follow_links else _FILE
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
            if source.startswith("/"):  # behind a link
                folder = _KeptFolder(os.open(parent or "/", FOLDER))
            else:
                folder = _KeptFolder(self._open_folder(parent))
            self._last = (parent, weakref.ref(folder))
            return self._open_in(folder, name, source, identity)
        except OSError as error:
            folder = None  # the error, if kept, must not keep the directory open
            failure = self._error(source, error.with_traceback(None))
            if isinstance(failure, NotFoundError):
                raise SourceChangedError(f"{self._show(source)} is gone") from None
            raise failure from error

    def _open_in(self, folder: _KeptFolder, name: str, source: str, identity: Identity) -> LocalFile:
        file = LocalFile(os.open(name, _FILE, dir_fd=folder.descriptor), identity, self, source, folder)
        file.check()
        return file

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


class _KeptFolder:
    """The directory of the file that was opened last. It stays open as long as a file in it: the next file is often in
    the same directory, and a model may have tens of thousands."""

    __slots__ = ("__weakref__", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class LocalFile:
    """An open file that can be read only while it has its pinned identity. It is closed with its last reference."""

    __slots__ = ("_descriptor", "_folder", "_identity", "_source", "_storage")

    def __init__(
        self, descriptor: int, identity: Identity, storage: LocalStorage, source: str, folder: _KeptFolder
    ) -> None:
        self._descriptor = descriptor
        self._identity = identity
        self._storage = storage
        self._source = source
        self._folder = folder

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        wanted = 0
        for view in views:
            wanted += len(view)
        try:
            got = os.preadv(self._descriptor, views, offset)
            while got != wanted:  # a short read: network file systems may return one, local disks do not
                rest = _after(views, got)
                more = os.preadv(self._descriptor, rest, offset + got)
                if more == 0:
                    raise SourceChangedError(f"{self._name()} became shorter while it was read")
                got += more
        except OSError as error:
            if error.errno == errno.ESTALE:  # NFS: the file was removed on its server
                raise SourceChangedError(f"{self._name()} is gone") from None
            raise StoreUnreadableError(f"{self._name()} cannot be read: {error.strerror}") from error
        # Check after the read, not before: then the bytes read belong to the identity.
        self.check()

    def descriptor(self) -> int:
        return self._descriptor

    def check(self) -> None:
        """Compare the file with its pinned identity. Raises SourceChangedError if they differ."""
        now = os.fstat(self._descriptor)
        pinned = self._identity
        if (
            now.st_ctime_ns != pinned.ctime_ns
            or now.st_mtime_ns != pinned.mtime_ns
            or now.st_size != pinned.size
            or now.st_ino != pinned.inode
            or now.st_dev != pinned.device
            or not stat.S_ISREG(now.st_mode)
        ):
            raise SourceChangedError(f"{self._name()} was changed or replaced")

    def _name(self) -> str:
        return self._storage._show(self._source)


def _after(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """Return the rest of the views after their first `count` bytes."""
    rest = []
    for view in views:
        if count < len(view):
            rest.append(view[count:])
        count = max(0, count - len(view))
    return rest


def _status(look: os.stat_result) -> Status:
    if stat.S_ISREG(look.st_mode):
        kind = Kind.FILE
    elif stat.S_ISDIR(look.st_mode):
        kind = Kind.FOLDER
    else:
        kind = Kind.LINK if stat.S_ISLNK(look.st_mode) else Kind.SPECIAL
    return Status(kind, bool(look.st_mode & stat.S_IXUSR), Identity.of(look))
