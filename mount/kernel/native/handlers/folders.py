"""The handlers of open directories: listings, with attributes if they are known."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence

from bentofs.mount.kernel.native.handlers.context import Context
from bentofs.mount.kernel.native.node_table import Node
from bentofs.mount.kernel.native.protocol import DIRENT, DIRENTPLUS, FSYNC_IN, OPEN_OUT, READ_IN, RELEASE_IN
from bentofs.mount.kernel.native.request import Answer, Request
from bentofs.mount.view.nodes import Item

_OWN = 2  # the first names of each list: `.` and `..`
_PADDING = [bytes(count) for count in range(8)]
_UNKNOWN: tuple[int, ...] = (0,) * 22  # an entry without a node: the kernel looks it up when it is needed


class _OpenFolder:
    """A directory that is being listed. Offsets are positions in the list as it was when reading began."""

    __slots__ = ("items", "number", "path")

    def __init__(self, path: str, number: int) -> None:
        self.path = path
        self.number = number  # the operations' handle
        self.items: Sequence[Item] | None = None


class Folders:
    """OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._operations = context.operations
        self._lock = threading.Lock()
        self._open: dict[int, _OpenFolder] = {}

    def opendir(self, request: Request) -> Answer:
        path = self._context.nodes.get(request.node).path
        number = self._operations.opendir(path)
        self._open[number] = _OpenFolder(path, number)
        return Answer(OPEN_OUT.pack(number, 0, 0), lambda: self._close(number))

    def releasedir(self, request: Request) -> bytes:
        self._close(RELEASE_IN.unpack_from(request.body)[0])
        return b""

    def fsyncdir(self, request: Request) -> bytes:
        self._operations.fsyncdir(FSYNC_IN.unpack_from(request.body)[0], request.uid)
        return b""

    def readdir(self, request: Request) -> bytes:
        number, offset, size, *_ = READ_IN.unpack_from(request.body)
        parts, used = [], 0
        items = self._items(self._open[number], offset)
        for place in range(offset, len(items)):
            item = items[place]
            name = os.fsencode(item.name)
            padding = -len(name) % 8
            used += DIRENT.size + len(name) + padding
            if used > size:
                break
            parts.append(DIRENT.pack(item.inode, place + 1, len(name), item.mode >> 12))
            parts.append(name + bytes(padding))
        return b"".join(parts)

    def readdirplus(self, request: Request) -> Answer | bytes:
        """List with attributes. An entry whose size must be measured first comes without, so that `ls` does not
        wait."""
        number, offset, size, *_ = READ_IN.unpack_from(request.body)
        folder = self._open[number]
        items = self._items(folder, offset)
        above = "" if folder.path == "/" else folder.path
        tell, entry_fields = self._context.nodes.tell, self._context.entry_fields
        told: list[Node] = []
        parts: list[bytes] = []
        names: list[bytes] = []
        for item in itertools.islice(items, offset, None):
            name = os.fsencode(item.name)
            size -= DIRENTPLUS.size + len(name) + -len(name) % 8
            if size < 0:
                break
            names.append(name)
        if not names:  # the end of the list
            return b""
        listed = items[offset : offset + len(names)]
        own = max(0, _OWN - offset)  # of `.` and `..`, which the kernel never looks up
        looked = self._operations.looks_in(folder.number, [item.name for item in listed[own:]])
        looks = [*[None] * own, *looked]
        for place, (item, name, look) in enumerate(zip(listed, names, looks, strict=True), offset + 1):
            if look is None:
                parts.append(DIRENTPLUS.pack(*_UNKNOWN, item.inode, place, len(name), item.mode >> 12))
            else:
                node = tell(f"{above}/{item.name}", look)
                told.append(node)
                attributes = look.attributes
                parts.append(
                    DIRENTPLUS.pack(
                        *entry_fields(node, look), attributes.inode, place, len(name), attributes.mode >> 12
                    )
                )
            parts.append(name + _PADDING[-len(name) % 8])
        return Answer(b"".join(parts), lambda: self._context.nodes.forget([(node.id, 1) for node in told]))

    def _items(self, folder: _OpenFolder, offset: int) -> Sequence[Item]:
        """Return the list. Make it anew when it is read from its beginning, for example after rewinddir(3)."""
        with self._lock:
            items = folder.items
        if items is None or offset == 0:
            items = self._operations.readdir(folder.number)
            with self._lock:
                folder.items = items
        return items

    def _close(self, number: int) -> None:
        del self._open[number]
        self._operations.releasedir(number)
