"""FsspecFiles: the driver for every other protocol that fsspec knows. Stores and transfers use it.

These file systems have no conditional requests. So a change is detected by the attributes of the file, which are
fetched again after each read. For the same reason a store cannot be written here.

Threading: any thread. File systems with one connection, such as FTP and SFTP, get a few instances; one caller at a time
uses each. Create it only after a fork.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import fsspec
from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

from bentofs.store.clients.error_classes import translating
from bentofs.store.clients.fsspec_fs import agree, new_file_system, path_of, size_of, version_of
from bentofs.store.clients.objects import Listing, ObjectInfo
from bentofs.store.clients.retry import Retries, RetryPolicy
from bentofs.store.errors import ConditionFailedError
from bentofs.store.location import Location
from bentofs.store.util.cancel import CancelTokens

_INSTANCES = 4
_TIMES = ("mtime", "lastmodified", "last_modified", "modify", "updated", "created")

_T = TypeVar("_T")


class FsspecFiles:
    """The files below one directory of one file system. Keys are paths below it."""

    splits = False
    has_etags = False

    def __init__(self, location: Location, policy: RetryPolicy, *, root: Location | None = None) -> None:
        """`root`: the directory of the keys; None for the location itself. Raises ImportError: a package for the
        protocol is not installed."""
        self.location = location.url.rstrip("/")
        self._where = location
        self._base = root or location
        self._policy = policy
        self._retries = Retries(policy)
        self._free: queue.LifoQueue[AbstractFileSystem | None] = queue.LifoQueue()
        for _ in range(_INSTANCES):
            self._free.put(None)
        kind = fsspec.get_filesystem_class("ftp" if location.protocol == "ftps" else location.protocol)
        self._root = path_of(kind, self._base).rstrip("/")

    def list_objects(self, prefix: str, *, more: str = "") -> Listing:  # noqa: ARG002 - all at once
        def find(fs: AbstractFileSystem) -> Listing:
            fs.invalidate_cache()
            found = files_below(fs, self.path(prefix).rstrip("/"))
            return Listing([self._info(info, path) for path, info in found.items()], [], "")

        return self.run(prefix, find)

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:  # noqa: ARG002 - all at once
        def read(fs: AbstractFileSystem) -> Listing:
            fs.invalidate_cache()
            found = fs.ls(self.path(prefix).rstrip("/"), detail=True)
            objects = [self._info(info, info["name"]) for info in found if info["type"] == "file"]
            folders = [self.key(info["name"].rstrip("/")) for info in found if info["type"] == "directory"]
            return Listing(objects, folders, "")

        return self.run(prefix, read)

    def read(
        self,
        wanted: ObjectInfo,
        start: int,
        end: int,
        *,
        into: bytearray | None = None,  # noqa: ARG002 - the library has its own
    ) -> bytes:
        path = self.path(wanted.key)

        def read(fs: AbstractFileSystem) -> bytes:
            content = _range(fs, path, start, end)
            fs.invalidate_cache()
            found = self._info(fs.info(path), path)
            # Check after the read, not before: then the bytes read belong to the listed file.
            if found.size != wanted.size or not agree(found.etag, wanted.etag):
                raise ConditionFailedError(f"{self.at(wanted.key).shown} was replaced while it was read: start again")
            return content

        return self.run(wanted.key, read)

    def fetch(self, key: str, start: int, end: int, stops: CancelTokens = ()) -> bytes:
        """Return the bytes [start, end) of a file, changed or not."""
        return self.run(key, lambda fs: _range(fs, self.path(key), start, end), stops)

    def run(self, key: str, action: Callable[[AbstractFileSystem], _T], stops: CancelTokens = ()) -> _T:
        """Return the result of `action`, with retries. `key`: named in errors."""

        def once() -> _T:
            with self._instance() as fs:
                return action(fs)

        return self._retries.call(self.at(key), once, stops)

    @contextmanager
    def once(self, key: str) -> Iterator[AbstractFileSystem]:
        """Lend the file system for actions that cannot be repeated. Errors of the library that the context raises
        become errors of `store.errors`. `key`: named in them."""
        with translating(self.at(key)), self._instance() as fs:
            yield fs

    def path(self, key: str) -> str:
        """Return a key's path in the notation of the file system."""
        return f"{self._root}/{key}"

    def key(self, path: str) -> str:
        """Return the key of a path of the file system."""
        return path[len(self._root) + 1 :]

    def at(self, key: str) -> Location:
        """Return the location of a key."""
        base = self._base.path.rstrip("/")
        return self._base.at(f"{base}/{key}" if base else key)

    @contextmanager
    def _instance(self) -> Iterator[AbstractFileSystem]:
        """Borrow a file system for exclusive use. After an error, it is discarded and recreated."""
        try:
            fs = self._free.get(timeout=self._policy.silence_seconds)
        except queue.Empty:
            raise TimeoutError("it does not answer in time") from None
        try:
            fs = fs or new_file_system(
                self._where,
                connect_seconds=self._policy.connect_seconds,
                silence_seconds=self._policy.silence_seconds,
            )
            yield fs
        except BaseException:
            fs = None
            raise
        finally:
            self._free.put(fs)

    def _info(self, info: dict[str, Any], path: str) -> ObjectInfo:
        times = {name.lower(): value for name, value in info.items() if name.lower() in _TIMES}
        mtime = next((times[name] for name in _TIMES if name in times), None)
        if isinstance(mtime, datetime):
            mtime = mtime.timestamp()
        mtime_ns = int(mtime * 10**9) if isinstance(mtime, (int, float)) else 0
        return ObjectInfo(self.key(path), size_of(info) or 0, version_of(info), mtime_ns)


def files_below(fs: AbstractFileSystem, path: str, *, with_folders: bool = False) -> dict[str, dict[str, Any]]:
    """Return what the library tells of each file below a path, by its own path; nothing if the path is not there.

    The library's walk leaves out a directory that it cannot list, also with on_error="raise", which it forgets below
    the top. A model's copy would lack files without a word. So directories are listed one by one here. File systems
    with a listing of their own, such as those of object stores, do not walk.
    """
    found: dict[str, dict[str, Any]] = {}
    own = getattr(type(fs), "_find", None)
    walks = type(fs).find is AbstractFileSystem.find if own is None else own is AsyncFileSystem._find
    if not walks:
        found.update(fs.find(path, withdirs=with_folders, detail=True))
        return found
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        with suppress(FileNotFoundError):  # it is not there, or was removed just now
            for info in fs.ls(folder, detail=True):
                name = info["name"].rstrip("/")
                if info["type"] != "directory":
                    found[info["name"]] = info
                elif name != folder.rstrip("/"):
                    waiting.append(name)
                    if with_folders:
                        found[name] = info
    return dict(sorted(found.items()))


def _range(fs: AbstractFileSystem, path: str, start: int, end: int) -> bytes:
    content = bytes(fs.cat_file(path, start, end))
    if len(content) != end - start:
        raise EOFError(f"{len(content)} bytes came where {end - start} were asked for")
    return content
