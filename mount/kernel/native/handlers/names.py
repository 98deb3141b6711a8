"""The handlers that make, remove and rename names. Only `incoming/` allows it."""

from __future__ import annotations

import errno
import os

from bentofs.mount.kernel.native.handlers.context import Context
from bentofs.mount.kernel.native.protocol import LINK_IN, MKDIR_IN, MKNOD_IN, RENAME2_IN, RENAME_IN, RENAME_NOREPLACE
from bentofs.mount.kernel.native.request import Answer, Request
from bentofs.store.errors import NotFoundError


class Names:
    """MKDIR, UNLINK, RMDIR, RENAME, RENAME2, and the refused requests: MKNOD, SYMLINK, LINK."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._operations = context.operations
        self._nodes = context.nodes

    def mkdir(self, request: Request) -> Answer:
        path = self._context.child_path(request.node, request.name(MKDIR_IN.size))
        self._operations.mkdir(path, request.uid)
        return self._context.entry(path, self._operations.look(path))

    def unlink(self, request: Request) -> bytes:
        path = self._context.child_path(request.node, request.name())
        self._operations.unlink(path)
        self._nodes.remove(path)
        return b""

    def rmdir(self, request: Request) -> bytes:
        path = self._context.child_path(request.node, request.name())
        self._operations.rmdir(path)
        self._nodes.remove(path)
        return b""

    def rename(self, request: Request) -> bytes:
        return self._rename(request, RENAME_IN.unpack_from(request.body)[0], 0, RENAME_IN.size)

    def rename2(self, request: Request) -> bytes:
        folder, flags, _ = RENAME2_IN.unpack_from(request.body)
        return self._rename(request, folder, flags, RENAME2_IN.size)

    def mknod(self, request: Request) -> bytes:
        self._operations.make_special(self._context.child_path(request.node, request.name(MKNOD_IN.size)))

    def symlink(self, request: Request) -> bytes:
        self._operations.make_special(self._context.child_path(request.node, request.names(0)[0]))

    def link(self, request: Request) -> bytes:
        self._operations.make_special(self._context.child_path(request.node, request.name(LINK_IN.size)))

    def _rename(self, request: Request, folder: int, flags: int, begin: int) -> bytes:
        old_name, new_name = request.names(begin)
        old = self._context.child_path(request.node, old_name)
        new = self._context.child_path(folder, new_name)
        if flags & ~RENAME_NOREPLACE:  # exchange, whiteout
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if flags & RENAME_NOREPLACE and self._is_there(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._operations.rename(old, new)
        self._nodes.rename(old, new)
        return b""

    def _is_there(self, path: str) -> bool:
        try:
            self._operations.look(path)
        except NotFoundError:
            return False
        return True
