"""The handlers of lookups and attributes."""

from __future__ import annotations

import os
import time

from bentofs.mount.kernel.native.handlers.context import Context
from bentofs.mount.kernel.native.protocol import (
    ACCESS_IN,
    BATCH_FORGET_IN,
    FORGET_IN,
    FORGET_ONE,
    SETATTR_IN,
    STATFS_OUT,
    SetattrValid,
)
from bentofs.mount.kernel.native.request import Answer, Request
from bentofs.store.errors import SourceChangedError
from bentofs.store.util.clock import SECOND_NS


class Lookups:
    """LOOKUP, FORGET, GETATTR, SETATTR, READLINK, ACCESS, STATFS."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._operations = context.operations
        self._nodes = context.nodes

    def lookup(self, request: Request) -> Answer:
        path = self._context.child_path(request.node, request.name())
        return self._context.entry(path, self._operations.look(path))

    def forget(self, request: Request) -> None:
        self._nodes.forget([(request.node, FORGET_IN.unpack_from(request.body)[0])])

    def batch_forget(self, request: Request) -> None:
        count, _ = BATCH_FORGET_IN.unpack_from(request.body)
        begin = BATCH_FORGET_IN.size
        self._nodes.forget(FORGET_ONE.iter_unpack(request.body[begin : begin + count * FORGET_ONE.size]))

    def getattr(self, request: Request) -> bytes:
        return self._context.attributes_reply(self._nodes.get(request.node))

    def setattr(self, request: Request) -> bytes:
        """Set the fields that are marked as valid. A file without a name keeps its attributes, except for its
        length."""
        fields = SETATTR_IN.unpack_from(request.body)
        valid, _, handle, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, *_ = fields
        node = self._nodes.get(request.node)
        if valid & SetattrValid.MODE and not node.is_gone:
            self._operations.chmod(node.path, mode)
        if valid & (SetattrValid.UID | SetattrValid.GID) and not node.is_gone:
            self._operations.chown(node.path)
        if valid & SetattrValid.SIZE:
            if valid & SetattrValid.FH:
                self._operations.ftruncate(handle, size)
            elif node.is_gone:  # another file may have its path now
                raise SourceChangedError(f"{node.path} was removed or replaced since it was looked up")
            else:
                self._operations.truncate(node.path, size, request.uid)
        if valid & (SetattrValid.ATIME | SetattrValid.MTIME) and not node.is_gone:
            now = time.time_ns()
            times = (
                _time(valid, SetattrValid.ATIME, SetattrValid.ATIME_NOW, atime * SECOND_NS + atime_ns, now),
                _time(valid, SetattrValid.MTIME, SetattrValid.MTIME_NOW, mtime * SECOND_NS + mtime_ns, now),
            )
            self._operations.utimens(node.path, *times)
        return self._context.attributes_reply(node)

    def readlink(self, request: Request) -> bytes:
        node = self._nodes.get(request.node)
        # The target is a link's generation. The kernel keeps it with the node, until a lookup tells of another one.
        target = node.generation
        return os.fsencode(target if isinstance(target, str) else self._operations.readlink(node.path))

    def access(self, request: Request) -> bytes:
        mask, _ = ACCESS_IN.unpack_from(request.body)
        node = self._nodes.get(request.node)
        if not node.is_gone:
            self._operations.access(node.path, mask)
        return b""

    def statfs(self, _request: Request) -> bytes:
        usage = self._operations.statfs()
        return STATFS_OUT.pack(
            usage.blocks,
            usage.blocks_free,
            usage.blocks_available,
            usage.files,
            usage.files_free,
            usage.block_size,
            usage.name_max,
            usage.fragment_size,
            0,
        )


def _time(valid: int, wanted: SetattrValid, to_now: SetattrValid, value: int, now: int) -> int | None:
    """Return the time to set, in ns; None to leave it as it is."""
    if not valid & wanted:
        return None
    return now if valid & to_now else value
