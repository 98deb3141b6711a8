"""Nodes: what stands in the tree: folders, files, links, and their attributes."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from abc import abstractmethod
from collections.abc import Hashable
from typing import NamedTuple

from bentofs.store.formats.pieces import Piece

ROOT_INODE = 1


class Attributes(NamedTuple):
    """What `stat` tells of a node."""

    mode: int
    inode: int
    links: int
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int
    uid: int | None = None  # None for the mount's own user


class Item(NamedTuple):
    """One line of a listing."""

    name: str
    mode: int  # the type bits are enough
    inode: int


# Not ABCs: which kind a node is, is asked at each step of each path, and ABCMeta's answer takes three times as long.
class Folder:
    """A directory."""

    @abstractmethod
    def attributes(self) -> Attributes:
        """What `stat` tells."""

    @abstractmethod
    def items(self) -> list[Item]:
        """What lies in it, `.` and `..` not counted."""

    @abstractmethod
    def child(self, name: str) -> Node:
        """What lies in it under this name.

        Raises:
            NotFoundError: nothing does.
        """


class File:
    """A regular file with the bytes of one generation."""

    @property
    @abstractmethod
    def generation(self) -> Hashable:
        """Equal for equal bytes under one path; changes with what the file is made from."""

    @abstractmethod
    def attributes(self) -> Attributes:
        """What `stat` tells."""

    def is_measured(self) -> bool:
        """Tell whether `attributes` answers without reading the model's files."""
        return True

    @property
    @abstractmethod
    def look(self) -> int:
        """When the look at the store began that found this (monotonic, ns): of two generations, the later is true."""

    @abstractmethod
    def renewed(self) -> File:
        """What stands at the same path by a look made now; lookups may be answered from one a moment old.

        Raises:
            NotFoundError: nothing does any more.
        """

    @abstractmethod
    def open(self) -> Piece:
        """The bytes of this generation.

        Raises:
            SourceChangedError, StoreUnreadableError: there is no reading it.
        """


class Link:
    """A symbolic link."""

    def __init__(self, path: str, target: str, mtime_ns: int) -> None:
        self.target = target
        self._path = path
        self._mtime_ns = mtime_ns

    def attributes(self) -> Attributes:
        size = len(os.fsencode(self.target))
        return Attributes(stat.S_IFLNK | 0o777, inode_of(self._path), 1, size, self._mtime_ns, self._mtime_ns)


Node = Folder | File | Link


class Text(File):
    """A small file whose bytes are at hand or cheap, and of known length."""

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

    def attributes(self) -> Attributes:
        return file_attributes(self._path, self._piece.length, self._mtime_ns, self._mtime_ns)

    def renewed(self) -> File:
        return self

    def open(self) -> Piece:
        return self._piece


def file_attributes(path: str, size: int, mtime_ns: int, ctime_ns: int, *, executable: bool = False) -> Attributes:
    """Of a regular file at a path of the mount. Writable by mode, as on any disk mounted read-only: copies that keep
    modes must be as usable as the model was."""
    mode = stat.S_IFREG | (0o755 if executable else 0o644)
    return Attributes(mode, inode_of(path), 1, size, mtime_ns, ctime_ns)


def folder_attributes(path: str, folders: int, mtime_ns: int, ctime_ns: int | None = None) -> Attributes:
    """Of a directory that holds so many directories; `ctime_ns`: None for the mtime."""
    ctime_ns = mtime_ns if ctime_ns is None else ctime_ns
    return Attributes(stat.S_IFDIR | 0o755, inode_of(path), 2 + folders, 0, mtime_ns, ctime_ns)


def inode_of(path: str) -> int:
    """A number that the path keeps over remounts; two paths of one mount meet in it about never (63 bits)."""
    if path == "/":
        return ROOT_INODE
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 | 2


def folder_item(path: str, name: str) -> Item:
    """The line of a directory `name` in the directory at `path`."""
    return Item(name, stat.S_IFDIR, inode_of(f"{path}/{name}"))


def file_item(path: str, name: str) -> Item:
    """The line of a regular file."""
    return Item(name, stat.S_IFREG, inode_of(f"{path}/{name}"))


def link_item(path: str, name: str) -> Item:
    """The line of a symbolic link."""
    return Item(name, stat.S_IFLNK, inode_of(f"{path}/{name}"))
