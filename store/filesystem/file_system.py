"""BentofsFileSystem: fsspec's file system of a store. It can only be read.

Errors of models, stores and servers are those of `store.errors`. A missing file is also a FileNotFoundError.
Threading: any thread may use a file system. One thread at a time may use a file that it opened.
"""

from __future__ import annotations

import datetime
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from fsspec import AbstractFileSystem
from fsspec.utils import stringify_path

from bentofs.store.archives.compression import Compression
from bentofs.store.errors import MissingFileError, NotFoundError, ReadOnlyError
from bentofs.store.filesystem.shared import Choice, SharedLibrary, shared_library
from bentofs.store.filesystem.tree import File, Folder, Node, Tree
from bentofs.store.formats.piece_file import PieceFile
from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.formats.write.registry import DEFAULT_FORMATS, format_named
from bentofs.store.storage.open import StoreSpec
from bentofs.store.storage.remote_defaults import DEFAULT_PATIENCE
from bentofs.store.util.clock import SECOND_NS
from bentofs.store.util.display import printable

_BUFFER = 64 << 10  # bytes that an open file reads at least at a time

_Info = dict[str, Any]


def _refuse(*_arguments: object, **_options: object) -> NoReturn:
    raise ReadOnlyError("bentofs:// can only be read: import a model with bentofs.import_model or `bentofs import`")


class BentofsFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The models of a store: `bentofs://NAME/VERSION/files/...`, `bentofs://NAME/VERSION/NAME-VERSION.tar`.

    The names are those in `models/` of a mount. `latest` and `latest.tar` lead to the latest version; they are not
    listed.
    """

    protocol = "bentofs"

    def __init__(
        self,
        store: str | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        compression: str | None = None,
        formats: Sequence[str] | None = None,
        timeout: float = DEFAULT_PATIENCE,
        **options: Any,
    ) -> None:
        """Choose a store. It is opened when it is first used.

        Args:
            store: a directory or a URL; None for $BENTOFS_STORE, else BentoML's own store.
            storage_options: for the file system of the URL, such as `endpoint_url`.
            compression: `auto`, `always` or `never`, as in a mount. None for the default: `auto` for a directory,
                `never` for a URL.
            formats: the archives of a model that are there; None for `bentomodel`, `tar`, `tar.gz` and `zip`.
            timeout: seconds for which a server may be away.
            options: fsspec's own.

        Raises:
            BadLocationError: the URL, the compression or a format is invalid.
        """
        super().__init__(**options)
        self._spec = StoreSpec.named(store, options=storage_options, patience=timeout)
        self._choice = Choice(
            self._spec.absolute_text,
            json.dumps(dict(storage_options or {}), sort_keys=True, default=repr),
            timeout,
            None if compression is None else Compression.named(compression),
        )
        self._formats = [format_named(name) for name in formats] if formats is not None else list(DEFAULT_FORMATS)
        self._opened: dict[int, SharedLibrary] = {}  # by process: a fork must leave its parent's alone

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        return "/".join(filter(None, super()._strip_protocol(stringify_path(path)).split("/")))

    def ls(self, path: str, detail: bool = True, *, measure: bool = True, **_options: Any) -> list[Any]:
        """List a directory. `measure`: False to give None for sizes of archives that must be compressed to be known.

        Raises:
            FileNotFoundError: there is no such path.
        """
        tree = self._tree()
        with _missing():
            node = tree.lookup(self._strip_protocol(path))
            nodes = node.children() if isinstance(node, Folder) else [node]
            return [_info(each, measure=measure) if detail else each.path for each in nodes]

    def walk(self, path: str, maxdepth: int | None = None, **options: Any) -> Iterator[Any]:
        """Walk a directory. Sizes are None for archives that must be compressed to be known."""
        yield from super().walk(path, maxdepth, **{"measure": False, **options})

    def info(self, path: str, **_options: Any) -> _Info:
        """Return name, type and exact size. A file also has `mtime` (seconds) and `etag`, which changes with it."""
        node = self._lookup(path)
        with _missing():
            return _info(node, measure=True)

    def exists(self, path: str, **_options: Any) -> bool:
        """Return True if there is such a path."""
        return self._found(path) is not None

    def isdir(self, path: str) -> bool:
        """Return True if the path is a directory."""
        return isinstance(self._found(path), Folder)

    def isfile(self, path: str) -> bool:
        """Return True if the path is a file."""
        return isinstance(self._found(path), File)

    def modified(self, path: str) -> datetime.datetime:
        """Return the time of a file's last change. The time of an archive is the model's creation time."""
        node = self._lookup(path)
        if isinstance(node, Folder):
            raise IsADirectoryError(f"{printable(path)} is a directory")
        return datetime.datetime.fromtimestamp(node.mtime_ns / SECOND_NS, datetime.timezone.utc)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_options: Any) -> bytes:
        """Return the bytes of a file, or a range of them, and move no others."""
        piece = _opened(self._file(path))
        first, last, _ = slice(start, end).indices(piece.length)
        return read_bytes(piece, first, max(0, last - first))

    def _open(
        self, path: str, mode: str = "rb", block_size: int | str | None = None, **_options: Any
    ) -> io.BufferedReader:
        if mode != "rb":
            _refuse()
        buffer = block_size if isinstance(block_size, int) and block_size > 0 else _BUFFER
        return OpenModelFile(self, self._file(path), buffer)

    def _file(self, path: str) -> File:
        node = self._lookup(path)
        if isinstance(node, Folder):
            raise IsADirectoryError(f"{printable(path)} is a directory")
        return node

    def _found(self, path: str) -> Node | None:
        try:
            return self._lookup(path)
        except MissingFileError:
            return None

    def _lookup(self, path: str) -> Node:
        tree = self._tree()
        with _missing():
            return tree.lookup(self._strip_protocol(path))

    def _tree(self) -> Tree:
        pid = os.getpid()
        if pid not in self._opened:
            self._opened[pid] = shared_library(self._choice, self._spec)
        return Tree(self._opened[pid].library(), self._formats)

    # Everything that writes.
    cp_file = makedirs = mkdir = mv = pipe_file = put_file = rm = rm_file = rmdir = touch = _refuse


class OpenModelFile(io.BufferedReader):
    """An open file. It has the bytes that the model had when it was opened, or raises SourceChangedError.

    Of a server, it moves what is read, and up to a buffer more."""

    def __init__(self, fs: BentofsFileSystem, file: File, buffer: int) -> None:
        piece = _opened(file)
        super().__init__(PieceFile(piece), buffer)
        self.fs = fs  # keeps the store open
        self.path = file.path
        self.size = piece.length
        self._buffer_size = buffer

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes. BufferedReader rounds a long read up to whole buffers."""
        if size is None or size <= self._buffer_size:
            return super().read(size)
        content = bytearray(min(size, self.size))
        return bytes(memoryview(content)[: self.readinto(content)])


def _info(node: Node, *, measure: bool) -> _Info:
    if isinstance(node, Folder):
        return {"name": node.path, "size": 0, "type": "directory"}
    return {
        "name": node.path,
        "size": node.size() if measure or node.is_measured else None,
        "type": "file",
        "mtime": node.mtime_ns / SECOND_NS,
        "etag": node.etag,
    }


def _opened(file: File) -> Piece:
    with _missing():
        return file.open()


@contextmanager
def _missing() -> Iterator[None]:
    """Raise a NotFoundError as a FileNotFoundError, too."""
    try:
        yield
    except NotFoundError as error:
        raise MissingFileError(str(error)) from None
