"""The file system's operations, each a few lines onto the tree. `mount/binding.py` calls them from libfuse's callbacks.

Any exception may leave an operation; the binding turns it into an errno (`mount/errors.py`).
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from typing import NoReturn

from mount.detacher import Detacher
from mount.generations import Generations
from mount.nodes import Attributes, File, Folder, Item, Link
from mount.tree import Tree
from store.errors import NotFoundError
from store.storage.base import Usage

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC


class Operations:
    """A mounted tree."""

    def __init__(self, tree: Tree, detacher: Detacher) -> None:
        self._tree = tree
        self._detacher = detacher
        self.generations = Generations(detacher)
        self._folders: dict[int, Folder] = {}
        self._numbers = itertools.count(1)

    def getattr(self, path: str, caller: Callable[[], int]) -> Attributes:
        """`caller`: tells which thread asks, by the kernel's number."""
        old = self.generations.being_detached(path)
        if old is not None and self._detacher.is_caller(caller()):
            return old
        ticket = self.generations.ticket()
        try:
            node = self._tree.lookup(path)
        except NotFoundError:
            self.generations.vanished(path)
            raise
        return self.generations.tell(path, node, ticket) if isinstance(node, File) else node.attributes()

    def fgetattr(self, handle: int) -> Attributes:
        return self.generations.handle(handle).attributes

    def readlink(self, path: str) -> str:
        node = self._tree.lookup(path)
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, "not a link")
        return node.target

    def opendir(self, path: str) -> int:
        node = self._tree.lookup(path)
        if not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, "not a folder")
        number = next(self._numbers)
        self._folders[number] = node
        return number

    def readdir(self, handle: int) -> list[Item]:
        return self._folders[handle].items()

    def releasedir(self, handle: int) -> None:
        del self._folders[handle]

    def open(self, path: str, flags: int) -> tuple[int, bool]:
        """A handle, and whether the kernel may keep the pages it has of this file."""
        node = self._tree.lookup(path)
        if flags & _WRITING:
            self.refuse()
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, "not a file")
        return self.generations.open(path, node.renewed())

    def read_into(self, handle: int, view: memoryview, offset: int) -> int:
        """Fill the view from `offset` on, as far as the file goes; the number of bytes. Never fewer for another
        reason: the kernel would take that for the end of the file."""
        piece = self.generations.handle(handle).piece
        size = len(view)
        rest = piece.length - offset
        if rest < size:
            if rest <= 0:
                return 0
            view, size = view[:rest], rest
        piece.read_into([view], offset)
        return size

    def release(self, handle: int) -> None:
        self.generations.release(handle)

    def access(self, path: str, mode: int) -> None:
        node = self._tree.lookup(path)
        if mode & os.W_OK:
            self.refuse()
        if mode & os.X_OK and not node.attributes().mode & stat.S_IXUSR:
            raise OSError(errno.EACCES, "not executable")

    def statfs(self) -> Usage:
        return self._tree.store.storage.usage()

    def unlink(self, path: str, thread_id: int) -> None:
        if not self._detacher.is_caller(thread_id):
            self._tree.lookup(path)
            self.refuse()

    def refuse(self) -> NoReturn:
        """Everything that would change something."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
