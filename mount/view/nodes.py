"""Nodes of the tree: directories, files, links, and their attributes."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import stat
import time
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

from bentofs.store.errors import StoreError
from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.model import Model
from bentofs.store.storage.base import Entry

log = logging.getLogger(__name__)

ROOT_INODE = 1
_INODES_KEPT = 512  # a listing asks twice for the inode of each name


class Subject(NamedTuple):
    """The model that a node is part of, for extended attributes."""

    model: Model
    format: Format | None = None  # of an archive
    entry: Entry | None = None  # of a file of the model


class Attributes(NamedTuple):
    """The stat data of a node."""

    mode: int
    inode: int
    links: int
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int
    uid: int | None = None  # None for the mount's own user


class Item(NamedTuple):
    """One entry of a directory listing."""

    name: str
    mode: int  # the type bits are enough
    inode: int


# Not ABCs: each step of each path checks a node's type, and ABCMeta makes that three times as slow.
class Folder:
    """A directory."""

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return the stat data."""

    @abstractmethod
    def items(self) -> list[Item]:
        """Return the entries, without `.` and `..`."""

    @abstractmethod
    def child(self, name: str) -> Node:
        """Return the entry of this name.

        Raises:
            NotFoundError: there is none.
        """

    def find_all(self, names: Sequence[str]) -> Iterator[Node | None]:
        """Yield the entry of each of these names, which `items` gave in this order; None for one that cannot be looked
        at now. A lookup of the name then gets the error."""
        return found_by(self.child, names)

    def subject(self) -> Subject | None:
        """Return the model of the directory; None if it is no model's."""
        return None


def found_by(child: Callable[[str], Node], names: Sequence[str]) -> Iterator[Node | None]:
    """Yield what `child` finds for each of these names; None where it raises an error."""
    for name in names:
        try:
            yield child(name)
        except (StoreError, OSError) as error:
            log.debug("%s is listed without attributes: %s", name, error)
            yield None


class File:
    """A regular file with the bytes of one generation."""

    is_cacheable = True  # False if the kernel must cache no bytes of it

    @property
    def kind(self) -> str:
        """Return the name under which reads of this file are counted: an archive's format, or another kind."""
        return "other"

    @property
    @abstractmethod
    def generation(self) -> Hashable:
        """Return a value that is equal for equal bytes under one path. It changes with the file's source."""

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return the stat data."""

    def bytes_name(self) -> str | None:
        """Return a text that is the same only for the same bytes, also over restarts. None if there is none."""
        return None

    def sha256(self) -> str | None:
        """Return the SHA-256 of the bytes, hexadecimal, if it is known; else None."""
        return None

    def is_measured(self) -> bool:
        """Tell whether `attributes` answers without reading the model's files."""
        return True

    @property
    @abstractmethod
    def look(self) -> int:
        """Return when the look at the store began that found this file (monotonic, ns). Of two generations, the one
        with the later look is true."""

    @abstractmethod
    def renewed(self) -> File:
        """Return the file at the same path, by a look made now. A lookup may be answered from a look that is a moment
        old.

        Raises:
            NotFoundError: there is none any more.
        """

    @abstractmethod
    def open(self) -> Piece:
        """Open the bytes of this generation.

        Raises:
            SourceChangedError, StoreUnreadableError: they cannot be read.
        """

    def subject(self) -> Subject | None:
        """Return the model, and the archive or the file of it; None if the file is neither."""
        return None


class Link:
    """A symbolic link."""

    def __init__(self, path: str, target: str, mtime_ns: int) -> None:
        self.target = target
        self._path = path
        self._mtime_ns = mtime_ns

    def attributes(self) -> Attributes:
        size = len(os.fsencode(self.target))
        return Attributes(stat.S_IFLNK | 0o777, inode_of(self._path), 1, size, self._mtime_ns, self._mtime_ns)

    def subject(self) -> Subject | None:
        """Return None: Linux keeps no attributes of users on links."""
        return None


Node = Folder | File | Link


class Text(File):
    """A small file of known length. Its bytes are in memory or cheap to make."""

    def __init__(self, path: str, piece: Piece, generation: Hashable, mtime_ns: int) -> None:
        self._generation = generation
        self._path = path
        self._piece = piece
        self._mtime_ns = mtime_ns
        self._look = time.monotonic_ns()

    @property
    def look(self) -> int:
        return self._look

    @property
    def generation(self) -> Hashable:
        return self._generation

    def bytes_name(self) -> str:
        return f"text/{read_bytes(self._piece, 0, self._piece.length)!r}"

    def attributes(self) -> Attributes:
        return file_attributes(self._path, self._piece.length, self._mtime_ns, self._mtime_ns)

    def renewed(self) -> File:
        return self

    def open(self) -> Piece:
        return self._piece


def file_attributes(path: str, size: int, mtime_ns: int, ctime_ns: int, *, executable: bool = False) -> Attributes:
    """Return the attributes of a regular file at a path of the mount. Its mode allows writing, like on a disk that is
    mounted read-only: copies that keep modes must be as usable as the model was."""
    mode = stat.S_IFREG | (0o755 if executable else 0o644)
    return Attributes(mode, inode_of(path), 1, size, mtime_ns, ctime_ns)


def folder_attributes(path: str, folders: int, mtime_ns: int, ctime_ns: int | None = None) -> Attributes:
    """Return the attributes of a directory. `folders`: the number of its subdirectories; `ctime_ns`: None for the
    mtime."""
    ctime_ns = mtime_ns if ctime_ns is None else ctime_ns
    return Attributes(stat.S_IFDIR | 0o755, inode_of(path), 2 + folders, 0, mtime_ns, ctime_ns)


@functools.lru_cache(_INODES_KEPT)
def inode_of(path: str) -> int:
    """Return an inode number that the path keeps over remounts. Two paths of one mount almost never share one (63
    bits)."""
    if path == "/":
        return ROOT_INODE
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 | 2


def folder_item(path: str, name: str) -> Item:
    """Return the entry of a directory `name` in the directory at `path`."""
    return Item(name, stat.S_IFDIR, inode_of(f"{path}/{name}"))


def file_item(path: str, name: str) -> Item:
    """Return the entry of a regular file."""
    return Item(name, stat.S_IFREG, inode_of(f"{path}/{name}"))


def link_item(path: str, name: str) -> Item:
    """Return the entry of a symbolic link."""
    return Item(name, stat.S_IFLNK, inode_of(f"{path}/{name}"))
