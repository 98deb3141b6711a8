"""Context: the operations, the nodes, and the replies with attributes, shared by all handlers."""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable
from contextlib import suppress

from bentofs.mount.kernel.native.node_table import Node, NodeTable
from bentofs.mount.kernel.native.protocol import ATTR_OUT, ENTRY_OUT
from bentofs.mount.kernel.native.request import Answer
from bentofs.mount.kernel.operations import Look, Operations
from bentofs.mount.view.nodes import Attributes
from bentofs.store.errors import NotFoundError, SourceChangedError
from bentofs.store.util.clock import SECOND_NS

# Seconds that the kernel believes a name. With the catalogue's own delay, a change is seen within two.
NAME_SECONDS = 1
_FOLDER_SECONDS = 1  # the attributes of a directory
_PINNED_SECONDS = 60  # the attributes of one generation of a file, and of a link
_UPLOAD_SECONDS = 0  # the attributes of an upload: they change with its outcome, which the close decides
_TREE_BLOCK = 128 << 10  # bytes that programs should read at a time: Python reads so many even for a small piece
_UPLOAD_BLOCK = 1 << 20  # bytes that programs should write at a time


class Context:
    """The handlers' view of one mount."""

    def __init__(self, operations: Operations, nodes: NodeTable) -> None:
        self.operations = operations
        self.nodes = nodes
        self._uid, self._gid = os.geteuid(), os.getegid()

    def child_path(self, parent: int, name: str) -> str:
        """Return the path of a name in a directory.

        Raises:
            NotFoundError: the directory was removed.
        """
        folder = self.nodes.get(parent)
        if folder.is_gone:
            raise NotFoundError(f"{folder.path} was removed")
        return f"/{name}" if folder.path == "/" else f"{folder.path}/{name}"

    def entry(self, path: str, look: Look) -> Answer:
        """Return the reply that tells the kernel of a name."""
        node = self.nodes.tell(path, look)
        return Answer(ENTRY_OUT.pack(*self.entry_fields(node, look)), lambda: self.nodes.forget([(node.id, 1)]))

    def entry_fields(self, node: Node, look: Look) -> tuple[int, ...]:
        """Return the fields of ENTRY_OUT for a node that the kernel was told of just now."""
        believed = _seconds(look.attributes, look.generation)
        return (node.id, 0, NAME_SECONDS, believed, 0, 0, *self.attribute_fields(look.attributes, look.generation))

    def attributes_reply(self, node: Node) -> bytes:
        """Return the reply with a node's attributes."""
        attributes = self.attributes(node)
        fields = self.attribute_fields(attributes, node.generation)
        return ATTR_OUT.pack(_seconds(attributes, node.generation), 0, 0, *fields)

    def attributes(self, node: Node) -> Attributes:
        """Return the present attributes of a node.

        Raises:
            SourceChangedError: another generation is at its path, and nobody has it open.
            NotFoundError: nothing is there.
        """
        if node.generation is not None:
            return self._pinned_attributes(node)
        if node.is_gone:
            return self._attributes_of_gone(node)
        try:
            node.attributes = self.operations.look(node.path).attributes
        except NotFoundError:
            if not node.handles:
                raise
            return self._attributes_of_gone(node)
        return node.attributes

    def attribute_fields(self, attributes: Attributes, generation: Hashable) -> tuple[int, ...]:
        """Return the fields of the kernel's fuse_attr."""
        mode, inode, links, size, mtime_ns, ctime_ns, uid = attributes
        mtime, mtime_rest = divmod(mtime_ns, SECOND_NS)
        ctime, ctime_rest = divmod(ctime_ns, SECOND_NS)
        is_file = stat.S_ISREG(mode)
        return (
            inode,
            size,
            (size + 511) >> 9 if is_file else 0,
            mtime,  # the access time, which nobody keeps
            mtime,
            ctime,
            mtime_rest,
            mtime_rest,
            ctime_rest,
            mode,
            links,
            self._uid if uid is None else uid,
            self._gid,
            0,
            _UPLOAD_BLOCK if is_file and generation is None else _TREE_BLOCK,
            0,
        )

    def _pinned_attributes(self, node: Node) -> Attributes:
        with suppress(IndexError, KeyError):  # not open, or closed just now
            return self.operations.fgetattr(node.handles[-1])
        look = self.operations.look(node.path)
        if look.generation != node.generation:
            raise SourceChangedError(f"{node.path} was replaced since it was looked up")
        return look.attributes

    def _attributes_of_gone(self, node: Node) -> Attributes:
        """Return the attributes of a file in `incoming/` that has no name any more. While the file is open, its bytes
        define them."""
        if node.kind == stat.S_IFREG:
            with suppress(IndexError, KeyError):  # closed just now
                node.attributes = self.operations.fgetattr(node.handles[-1])
        if node.attributes is None:
            raise NotFoundError(f"{node.path} is not there")
        return node.attributes._replace(links=0)


def _seconds(attributes: Attributes, generation: Hashable) -> int:
    """Return how long the kernel may believe attributes, in seconds."""
    if generation is not None:
        return _PINNED_SECONDS
    return _UPLOAD_SECONDS if stat.S_ISREG(attributes.mode) else _FOLDER_SECONDS
