"""Passthrough: the kernel reads files of a local store itself, without the daemon (Linux 6.9 and later, root only).

The daemon gives a file's descriptor to the kernel and gets a backing id. All opens of one node share one id: the kernel
answers EIO to a second id, and to opens that mix passthrough with the page cache. So a node that is open one way is
opened that way again, until nobody has it open.

Threading: any thread.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading

from bentofs.mount.kernel.native.handle_table import HandleTable
from bentofs.mount.kernel.native.node_table import Node
from bentofs.mount.kernel.native.protocol import BACKING_CLOSE, BACKING_CLOSE_IN, BACKING_OPEN, BACKING_OPEN_IN
from bentofs.store.storage.base import OpenFile
from bentofs.store.storage.pinned import PinnedFile

log = logging.getLogger(__name__)

NO_STACKING = 0
_OVERLAY = "overlay"


class _Backing:
    """The way in which a node is open."""

    __slots__ = ("count", "id")

    def __init__(self, number: int) -> None:
        self.id = number  # 0 if the daemon reads the file
        self.count = 0  # the number of handles that share it


class Passthrough:
    """The files of one mount that the kernel reads itself."""

    def __init__(self, device: int, handles: HandleTable, *, is_agreed: bool) -> None:
        self._device = device
        self._handles = handles
        self._is_agreed = self._is_possible = is_agreed
        self._lock = threading.Lock()  # guards the two below
        self._by_node: dict[int, _Backing] = {}
        self._by_handle: dict[int, int] = {}  # the node of each handle in the one above

    def open(self, node: Node, handle: int) -> int:
        """Make the kernel read an open file itself. Return the backing id, or 0 if the daemon must read it.

        Raises:
            SourceChangedError: another file is in its place.
            StoreUnreadableError: it may not be read.
        """
        if not self._is_agreed:
            return 0
        piece = self._handles.handle(handle).piece
        if not isinstance(piece, PinnedFile):
            return 0
        file = None
        if self._is_possible and node.id not in self._by_node:
            file = piece.open()  # without the lock: a disk may be stuck
        with self._lock:
            backing = self._by_node.get(node.id)
            if backing is None:
                backing = self._by_node[node.id] = _Backing(self._new_number(file))
            backing.count += 1
            self._by_handle[handle] = node.id
            return backing.id

    def close(self, handle: int) -> None:
        """Note that a file was closed, whether the kernel or the daemon read it."""
        with self._lock:
            node = self._by_handle.pop(handle, None)
            if node is None:
                return
            backing = self._by_node[node]
            backing.count -= 1
            if backing.count:
                return
            del self._by_node[node]
        if not backing.id:
            return
        try:
            fcntl.ioctl(self._device, BACKING_CLOSE, BACKING_CLOSE_IN.pack(backing.id))
        except OSError as error:  # the mount has ended
            log.debug("backing id %d could not be released: %s", backing.id, error)

    def _new_number(self, file: OpenFile | None) -> int:
        """Give an open file to the kernel. Return the backing id, or 0."""
        descriptor = file.descriptor() if file is not None else None
        if descriptor is None:
            return 0
        try:  # for a bytearray, ioctl returns its result; for bytes, it returns bytes
            return int(fcntl.ioctl(self._device, BACKING_OPEN, bytearray(BACKING_OPEN_IN.pack(descriptor, 0, 0))))
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ELOOP, errno.EOPNOTSUPP):
                self._is_possible = False
            log.info("no passthrough, so the daemon reads the files: %s", error.strerror)
            return 0


def stack_depth(store: str | None) -> int:
    """Return how many file systems the kernel may stack for the store's files; 0 for none.

    `store`: the directory of a local store, None for no passthrough. Files of an overlay, common in containers, need
    one level more. Then nothing can be stacked on the mount itself.
    """
    if store is None or os.geteuid() != 0:
        return NO_STACKING
    return 2 if _type_of_file_system(store) == _OVERLAY else 1


def _type_of_file_system(path: str) -> str | None:
    """Return the type of a directory's file system, from the kernel's mount table."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", errors="surrogateescape", newline="\n") as table:
        for line in table:
            fields = line.split(" ")
            if fields[2] == wanted:
                return fields[fields.index("-", 6) + 1]
    return None
