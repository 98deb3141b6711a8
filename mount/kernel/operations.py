"""The file system's operations, each a few lines on the tree or the drop box. Engines (`mount.kernel.engine`) call them
and speak to the kernel.

An operation may raise any exception; the engine turns it into an errno (`mount/errors.py`).
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import time
from collections.abc import Hashable, Sequence
from typing import NamedTuple, NoReturn, Protocol

from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.kernel.listed import FoundFolder, Listed
from bentofs.mount.kernel.xattrs import ExtendedAttributeOperations
from bentofs.mount.view.nodes import Attributes, File, Folder, Item, Link, Node, inode_of
from bentofs.mount.view.traffic import Traffic
from bentofs.mount.view.tree import INCOMING, Tree
from bentofs.store.errors import SourceChangedError, StoreError
from bentofs.store.formats.pieces import Piece
from bentofs.store.storage.base import Usage

log = logging.getLogger(__name__)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_INCOMING = f"/{INCOMING}"
_FIRST_UPLOAD = 1 << 62  # handles from here on belong to the drop box


class Opened(NamedTuple):
    """An open file, for the reply to the kernel."""

    handle: int
    keep_cache: bool  # True if the kernel's cached pages of this file are still valid
    direct: bool  # True if the kernel must cache no pages at all


class Look(NamedTuple):
    """The state of a path at one look."""

    attributes: Attributes
    generation: Hashable = None  # of a file's bytes, or a link's target; None for directories and all in incoming/


class PinnedHandle(Protocol):
    """An open file of the tree, pinned to its generation."""

    @property
    def piece(self) -> Piece: ...

    @property
    def attributes(self) -> Attributes: ...


class Handles(Protocol):
    """An engine's table of the open files of the tree."""

    def open(self, path: str, file: File) -> tuple[int, bool]:
        """Open `file`, which is at `path` now. Return the handle's number, and whether the kernel may keep its cached
        pages."""

    def handle(self, number: int) -> PinnedHandle:
        """Return the open file of this number."""

    def release(self, number: int) -> None:
        """Close an open file."""


class Operations:
    """The operations of one mounted tree."""

    def __init__(
        self, tree: Tree, handles: Handles, namespace: Namespace | None = None, traffic: Traffic | None = None
    ) -> None:
        """`namespace`: None for a mount without `incoming/`; `traffic`: the counts of reads, None for new ones."""
        self._tree = tree
        self.xattrs = ExtendedAttributeOperations(self, tree.extended)
        self._handles = handles
        self._namespace = namespace
        self._traffic = traffic or Traffic()
        self._counts = self._traffic.by_handle
        # The open directories: each one's path, and its node. In incoming/ the path below it replaces the node.
        self._folders: dict[int, tuple[str, FoundFolder | str]] = {}
        self._listed = Listed()
        self._numbers = itertools.count(1)

    @property
    def takes_uploads(self) -> bool:
        """True if closing a file can have an effect. Otherwise the kernel need not report it."""
        return self._namespace is not None

    def look(self, path: str) -> Look:
        """Look at a path: its attributes and its generation."""
        uploaded = self.uploaded(path)
        return Look(uploaded) if uploaded is not None else _look_at(self.node(path))

    def uploaded(self, path: str) -> Attributes | None:
        """Return the attributes of a path in `incoming/`; None for a path outside of it."""
        if self._namespace is None or not path.startswith(_INCOMING):
            return None
        below = _below_incoming(path)
        return self._namespace.attributes(below) if below is not None else None

    def node(self, path: str) -> Node:
        """Return the node at a path of the tree."""
        return self._tree.lookup(path)

    def looks_in(self, handle: int, names: Sequence[str]) -> list[Look | None]:
        """Look at names of an open directory, which `readdir` gave in this order, without measuring. None stands where
        only `look` can tell, for example an error."""
        path, opened = self._folders[handle]
        if isinstance(opened, str):
            return self._looks_in_incoming(path, opened, names)
        if not opened.is_young:  # a program may have opened it long ago
            try:
                opened = self._find_folder(path)
            except (StoreError, OSError) as error:
                log.debug("%s is listed without attributes: %s", path, error)
                return [None] * len(names)
            self._folders[handle] = path, opened
        return self._looks_in_tree(path, opened, names)

    def fgetattr(self, handle: int) -> Attributes:
        if handle >= _FIRST_UPLOAD:
            return self._box().files.attributes(handle - _FIRST_UPLOAD)
        return self._handles.handle(handle).attributes

    def readlink(self, path: str) -> str:
        node = self._tree.lookup(path)
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, "not a link")
        return node.target

    def opendir(self, path: str) -> int:
        below = self._below(path)
        opened: FoundFolder | str
        if below is not None:
            self._box().check_folder(below)
            opened = below
        else:
            opened = self._listed.find(path) or self._find_folder(path)
        number = next(self._numbers)
        self._folders[number] = path, opened
        return number

    def readdir(self, handle: int) -> list[Item]:
        """Return the entries, `.` and `..` included."""
        path, opened = self._folders[handle]
        items = self._box().items(opened) if isinstance(opened, str) else opened.folder.items()
        parent = path.rpartition("/")[0] or "/"
        return [Item(".", stat.S_IFDIR, self._inode_of(path)), Item("..", stat.S_IFDIR, self._inode_of(parent)), *items]

    def fsyncdir(self, handle: int, user: int) -> None:
        _, opened = self._folders[handle]
        if isinstance(opened, str):
            self._box().folders.sync(opened, user)

    def releasedir(self, handle: int) -> None:
        del self._folders[handle]

    def open(self, path: str, flags: int, user: int, expected: Hashable = None) -> Opened:
        """Open a file. `user`: the caller's uid; `expected`: the only generation to accept, if any.

        Raises:
            SourceChangedError: another generation is at the path.
        """
        below = self._below(path)
        if below is not None:
            return Opened(_FIRST_UPLOAD + self._box().files.open(below, flags, user), keep_cache=False, direct=True)
        node = self._tree.lookup(path)
        if flags & _WRITING:
            self.refuse()
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, "not a file")
        file = node.renewed()
        if expected is not None and file.generation != expected:
            raise SourceChangedError(f"{path} was replaced since it was looked up")
        handle, keep_cache = self._handles.open(path, file)
        self._traffic.opened(handle, file.kind)
        return Opened(handle, keep_cache and file.is_cacheable, direct=not file.is_cacheable)

    def create(self, path: str, flags: int, mode: int, user: int) -> Opened:
        """Create a file in `incoming/`."""
        handle = self._box().files.create(self._incoming(path), flags, mode, user)
        return Opened(_FIRST_UPLOAD + handle, keep_cache=False, direct=True)

    def read_into(self, handle: int, view: memoryview, offset: int) -> int:
        """Fill the view from `offset` on, up to the end of the file. Return the number of bytes. Never return fewer for
        another reason: the kernel would take that for the end of the file."""
        if handle >= _FIRST_UPLOAD:
            return self._box().files.read_into(handle - _FIRST_UPLOAD, view, offset)
        piece = self._handles.handle(handle).piece
        size = len(view)
        rest = piece.length - offset
        if rest < size:
            if rest <= 0:
                return 0
            view, size = view[:rest], rest
        piece.read_into([view], offset)
        count = self._counts[handle]
        count.reads += 1
        count.bytes += size
        return size

    def write(self, handle: int, view: memoryview, offset: int) -> int:
        return self._box().files.write(self._upload(handle), view, offset)

    def flush(self, handle: int) -> None:
        if handle >= _FIRST_UPLOAD:
            self._box().files.flush(handle - _FIRST_UPLOAD)

    def fsync(self, handle: int) -> None:
        if handle >= _FIRST_UPLOAD:
            self._box().files.sync(handle - _FIRST_UPLOAD)

    def fallocate(self, handle: int, offset: int, length: int, mode: int) -> None:
        """Reserve room for later bytes, or turn a range into zeros."""
        self._box().files.allocate(self._upload(handle), offset, length, mode)

    def ftruncate(self, handle: int, length: int) -> None:
        self._box().files.truncate(self._upload(handle), length)

    def truncate(self, path: str, length: int, user: int) -> None:
        self._box().files.truncate_path(self._incoming(path), length, user)

    def release(self, handle: int) -> None:
        if handle >= _FIRST_UPLOAD:
            self._box().files.release(handle - _FIRST_UPLOAD)
        else:
            self._traffic.closed(handle)
            self._handles.release(handle)

    def access(self, path: str, mode: int) -> None:
        below = self._below(path)
        if below is not None:
            self._box().attributes(below)
            return
        node = self._tree.lookup(path)
        if mode & os.W_OK:
            self.refuse()
        if mode & os.X_OK and not node.attributes().mode & stat.S_IXUSR:
            raise OSError(errno.EACCES, "not executable")

    def statfs(self) -> Usage:
        return self._tree.store.storage.usage()

    def unlink(self, path: str) -> None:
        below = self._below(path)
        if below is None:
            self.node(path)
            self.refuse()
        self._box().unlink(below)

    def rename(self, old: str, new: str) -> None:
        if self._below(old) is None and self._below(new):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))  # programs copy instead
        self._box().rename(self._incoming(old), self._incoming(new))

    def mkdir(self, path: str, user: int) -> None:
        self._box().folders.make(self._incoming(path), user)

    def rmdir(self, path: str) -> None:
        self._box().folders.remove(self._incoming(path))

    def utimens(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Set the times. None leaves a time as it is."""
        self._box().set_times(self._incoming(path), atime_ns, mtime_ns)

    def chmod(self, path: str, mode: int) -> None:
        self._box().set_mode(self._incoming(path), mode)

    def chown(self, path: str) -> None:
        """Accept a new owner in `incoming/` and ignore it: a model belongs to the owner of the mount."""
        self._box().attributes(self._incoming(path))

    def is_upload(self, path: str) -> bool:
        """True for a path in `incoming/`, and for `incoming/` itself."""
        return self._below(path) is not None

    def check_upload(self, path: str) -> None:
        """Refuse a change of a path that is not in `incoming/`, or not there."""
        self._box().attributes(self._incoming(path))

    def make_special(self, path: str) -> NoReturn:
        """Refuse links and devices: models are made of files and directories."""
        self._incoming(path)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def refuse(self) -> NoReturn:
        """Refuse a change outside of `incoming/`."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def _find_folder(self, path: str) -> FoundFolder:
        looked = time.monotonic()
        node = self._tree.lookup(path)
        if not isinstance(node, Folder):
            raise OSError(errno.ENOTDIR, "not a directory")
        return FoundFolder(node, looked)

    def _looks_in_tree(self, path: str, opened: FoundFolder, names: Sequence[str]) -> list[Look | None]:
        looks: list[Look | None] = []
        folders: dict[str, Folder] = {}
        for name, node in zip(names, opened.folder.find_all(names), strict=True):
            look: Look | None = None
            try:
                if isinstance(node, File):
                    if node.is_measured():
                        look = Look(node.attributes(), node.generation)
                elif path == "/" and name == INCOMING:
                    look = self.look(_INCOMING)
                elif node is not None:
                    look = _look_at(node)
                    if isinstance(node, Folder):
                        folders[name] = node
            except (StoreError, OSError) as error:
                _log_left_out(name, path, error)
            looks.append(look)
        self._listed.keep(path, folders, opened.looked)
        return looks

    def _looks_in_incoming(self, path: str, below: str, names: Sequence[str]) -> list[Look | None]:
        looks: list[Look | None] = []
        for name in names:
            look: Look | None = None
            try:
                look = Look(self._box().attributes(f"{below}/{name}" if below else name))
            except (StoreError, OSError) as error:
                _log_left_out(name, path, error)
            looks.append(look)
        return looks

    def _inode_of(self, folder: str) -> int:
        below = self._below(folder)
        return self._box().attributes(below).inode if below is not None else inode_of(folder)

    def _below(self, path: str) -> str | None:
        """Return the path below `incoming/`. None if the path is outside of it, or if the mount has none."""
        return _below_incoming(path) if self._namespace is not None else None

    def _incoming(self, path: str) -> str:
        """Return the path below `incoming/`. Refuse a path outside of it: nothing changes there."""
        below = self._below(path)
        if below is None:
            self.refuse()
        return below

    def _box(self) -> Namespace:
        if self._namespace is None:
            self.refuse()
        return self._namespace

    def _upload(self, handle: int) -> int:
        if handle < _FIRST_UPLOAD:
            self.refuse()
        return handle - _FIRST_UPLOAD


def _log_left_out(name: str, folder: str, error: Exception) -> None:
    log.debug("%s in %s is listed without attributes: %s", name, folder, error)


def _look_at(node: Node) -> Look:
    generation = node.generation if isinstance(node, File) else node.target if isinstance(node, Link) else None
    return Look(node.attributes(), generation)


def _below_incoming(path: str) -> str | None:
    if path == _INCOMING:
        return ""
    return path[len(_INCOMING) + 1 :] if path.startswith(f"{_INCOMING}/") else None
