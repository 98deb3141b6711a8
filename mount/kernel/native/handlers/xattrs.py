"""The handlers of extended attributes."""

from __future__ import annotations

import errno
import os

from bentofs.mount.kernel.native.handlers.context import Context
from bentofs.mount.kernel.native.protocol import GETXATTR_IN, GETXATTR_OUT, SETXATTR_IN
from bentofs.mount.kernel.native.request import Request


class ExtendedAttributeHandlers:
    """GETXATTR, LISTXATTR, SETXATTR, REMOVEXATTR."""

    def __init__(self, context: Context) -> None:
        self._xattrs = context.operations.xattrs
        self._nodes = context.nodes

    def getxattr(self, request: Request) -> bytes:
        size, _ = GETXATTR_IN.unpack_from(request.body)
        node = self._nodes.get(request.node)
        return _sized(self._xattrs.get(node.path, request.name(GETXATTR_IN.size), node.generation), size)

    def listxattr(self, request: Request) -> bytes:
        size, _ = GETXATTR_IN.unpack_from(request.body)
        node = self._nodes.get(request.node)
        return _sized(self._xattrs.names(node.path, node.generation), size)

    def setxattr(self, request: Request) -> bytes:
        size, flags = SETXATTR_IN.unpack_from(request.body)
        name, _, rest = bytes(request.body[SETXATTR_IN.size :]).partition(b"\0")
        node = self._nodes.get(request.node)
        if not node.is_gone:
            self._xattrs.set(node.path, os.fsdecode(name), rest[:size], flags)
        return b""

    def removexattr(self, request: Request) -> bytes:
        node = self._nodes.get(request.node)
        if not node.is_gone:
            self._xattrs.remove(node.path, request.name())
        return b""


def _sized(answer: bytes, size: int) -> bytes:
    """Return the reply for a caller with so much room. Without any room, it asks for the length only."""
    if not size:
        return GETXATTR_OUT.pack(len(answer), 0)
    if len(answer) > size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return answer
