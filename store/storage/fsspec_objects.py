"""Objects on any other file system that fsspec supports: the files below one directory.

These file systems have no conditional requests. So a change is detected by the attributes of the file, which are
fetched again after each read. For the same reason nothing is written here.

Threading: any thread. File systems with one connection, such as FTP and SFTP, get a few instances; one caller at a time
uses each. Create it only after a fork.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import fsspec
from fsspec import AbstractFileSystem

from bentofs.store.clients.fsspec_fs import agree, new_file_system, path_of, size_of, version_of
from bentofs.store.location import Location
from bentofs.store.storage.objects import ChangedObjectError, Listing, ObjectInfo, TransientError, translated

_INSTANCES = 4
_TIMES = ("mtime", "lastmodified", "last_modified", "modify", "updated", "created")


class AnyObjects:
    """The files below one directory of one file system."""

    splits = False

    def __init__(self, location: Location, attempt_seconds: float) -> None:
        """`attempt_seconds`: the time limit of one attempt, if the file system heeds it.

        Raises:
            ImportError, TypeError, ...: the file system cannot be created.
        """
        self.location = location.url.rstrip("/")
        self._where = location
        self._attempt_seconds = attempt_seconds
        self._free: queue.Queue[AbstractFileSystem | None] = queue.Queue()
        for _ in range(_INSTANCES):
            self._free.put(None)
        kind = fsspec.get_filesystem_class("ftp" if location.protocol == "ftps" else location.protocol)
        self._root = path_of(kind, location).rstrip("/")

    def list_objects(self, prefix: str, *, more: str = "") -> Listing:  # noqa: ARG002 - all at once
        with self._instance() as fs:
            fs.invalidate_cache()
            found = fs.find(f"{self._root}/{prefix}".rstrip("/"), detail=True)
            begin = len(self._root) + 1
            objects = [_info(path[begin:], info) for path, info in found.items()]
        return Listing(objects, [], "")

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:  # noqa: ARG002 - all at once
        with self._instance() as fs:
            fs.invalidate_cache()
            found = fs.ls(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        begin = len(self._root) + 1
        objects = [_info(info["name"][begin:], info) for info in found if info["type"] == "file"]
        return Listing(objects, [info["name"].rstrip("/")[begin:] for info in found if info["type"] == "directory"], "")

    def read(self, wanted: ObjectInfo, start: int, end: int) -> bytes:
        path = f"{self._root}/{wanted.key}"
        with self._instance() as fs:
            content = fs.cat_file(path, start, end)
            fs.invalidate_cache()
            found = _info(wanted.key, fs.info(path))
        # Check after the read, not before: then the bytes read belong to the listed file.
        if found.size != wanted.size or not agree(found.etag, wanted.etag):
            raise ChangedObjectError
        if len(content) != end - start:
            raise TransientError(f"the answer ended after {len(content)} of {end - start} bytes")
        return bytes(content)

    @contextmanager
    def _instance(self) -> Iterator[AbstractFileSystem]:
        """Borrow a file system for exclusive use. After an error, it is discarded and recreated."""
        try:
            fs = self._free.get(timeout=self._attempt_seconds)
        except queue.Empty:
            raise TransientError("it does not answer in time") from None
        try:
            fs = fs or new_file_system(
                self._where, connect_seconds=self._attempt_seconds, silence_seconds=self._attempt_seconds
            )
            yield fs
        except BaseException as error:
            fs = None
            if isinstance(error, Exception):
                raise translated(error, self._where.secrets) from error
            raise
        finally:
            self._free.put(fs)


def _info(key: str, info: dict[str, Any]) -> ObjectInfo:
    times = {name.lower(): value for name, value in info.items() if name.lower() in _TIMES}
    mtime = next((times[name] for name in _TIMES if name in times), None)
    if isinstance(mtime, datetime):
        mtime = mtime.timestamp()
    mtime_ns = int(mtime * 10**9) if isinstance(mtime, (int, float)) else 0
    return ObjectInfo(key, size_of(info) or 0, version_of(info), mtime_ns)
