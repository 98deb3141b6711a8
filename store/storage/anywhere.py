"""Objects on any other file system that fsspec knows: the files below one folder.

A file is told from a changed one by whatever its file system says of it, looked at once more after each read: there is
no condition to send along. For the same reason nothing is written here.

Threading: any thread. File systems with one connection, as FTP's and SFTP's, get a few instances, one a caller at a
time. Must not be made before a fork.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem

from store.storage.objects import (
    ChangedObjectError,
    DeniedError,
    Listing,
    MissingObjectError,
    ObjectInfo,
    RefusedError,
    TransientError,
)

_INSTANCES = 4
# What file systems call the things that change with a file's bytes.
_VERSIONS = ("etag", "md5", "md5hash", "generation", "version", "mtime", "lastmodified", "last_modified", "created")
_TIMES = ("mtime", "lastmodified", "last_modified", "modify", "updated", "created")


class AnyObjects:
    """The files below one folder of one file system."""

    splits = False

    def __init__(
        self, location: str, path: str, kind: type[AbstractFileSystem], options: dict[str, Any], attempt_seconds: float
    ) -> None:
        """`path`: of the folder, as its file system has it; `location`: to show."""
        self.location = location
        self._root = path.rstrip("/")
        self._kind = kind
        self._options = options
        self._attempt_seconds = attempt_seconds
        self._free: queue.Queue[AbstractFileSystem | None] = queue.Queue()
        for _ in range(_INSTANCES):
            self._free.put(None)

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
        # After the bytes, not before: what was read is what the listing told of.
        if not _agree(found, wanted):
            raise ChangedObjectError
        if len(content) != end - start:
            raise TransientError(f"the answer ended after {len(content)} of {end - start} bytes")
        return bytes(content)

    @contextmanager
    def _instance(self) -> Iterator[AbstractFileSystem]:
        """A file system that nobody else uses meanwhile; after an error, the next one is made anew."""
        try:
            fs = self._free.get(timeout=self._attempt_seconds)
        except queue.Empty:
            raise TransientError("it does not answer in time") from None
        try:
            fs = fs or self._kind(skip_instance_cache=True, **self._options)
            yield fs
        except BaseException as error:
            fs = None
            if isinstance(error, Exception):
                raise _translated(error) from error
            raise
        finally:
            self._free.put(fs)


def _info(key: str, info: dict[str, Any]) -> ObjectInfo:
    versions = {name.lower(): _as_text(value) for name, value in info.items() if name.lower() in _VERSIONS and value}
    times = {name.lower(): value for name, value in info.items() if name.lower() in _TIMES}
    mtime = next((times[name] for name in _TIMES if name in times), None)
    if isinstance(mtime, datetime):
        mtime = mtime.timestamp()
    mtime_ns = int(mtime * 10**9) if isinstance(mtime, (int, float)) else 0
    return ObjectInfo(key, int(info.get("size") or 0), json.dumps(versions, sort_keys=True), mtime_ns)


def _as_text(value: object) -> str:
    """Times look different in listings and in looks at one file."""
    if isinstance(value, datetime):
        value = value.timestamp()
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _agree(found: ObjectInfo, wanted: ObjectInfo) -> bool:
    """Whether two looks at a file saw the same; listings may tell less than a look at one file."""
    first, second = json.loads(found.etag), json.loads(wanted.etag)
    return found.size == wanted.size and all(first[name] == second[name] for name in first.keys() & second.keys())


def _translated(error: Exception) -> Exception:
    if isinstance(error, (MissingObjectError, ChangedObjectError, DeniedError, TransientError, RefusedError)):
        return error
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return MissingObjectError()
    if isinstance(error, PermissionError):
        return DeniedError(f"{error}")
    if isinstance(error, (TypeError, ValueError, NotImplementedError, ImportError, IsADirectoryError)):
        return RefusedError(f"{type(error).__name__}: {error}")
    return TransientError(f"{error}" or type(error).__name__)
