"""The handlers of open files: reading in the tree, writing in `incoming/`."""

from __future__ import annotations

import errno

from bentofs.mount.kernel.native.handlers.context import Context
from bentofs.mount.kernel.native.node_table import Node
from bentofs.mount.kernel.native.passthrough import Passthrough
from bentofs.mount.kernel.native.protocol import (
    CREATE_IN,
    ENTRY_OUT,
    FALLOCATE_IN,
    FLUSH_IN,
    FSYNC_IN,
    OPEN_IN,
    OPEN_OUT,
    READ_IN,
    RELEASE_IN,
    WRITE_IN,
    WRITE_OUT,
    OpenFlag,
)
from bentofs.mount.kernel.native.request import Answer, Request
from bentofs.mount.kernel.operations import Look, Opened
from bentofs.store.errors import SourceChangedError


class Files:
    """OPEN, CREATE, READ, WRITE, FALLOCATE, FLUSH, FSYNC, RELEASE."""

    def __init__(self, context: Context, passthrough: Passthrough) -> None:
        self._context = context
        self._passthrough = passthrough
        self._operations = context.operations
        self._nodes = context.nodes

    def open(self, request: Request) -> Answer:
        flags, _ = OPEN_IN.unpack_from(request.body)
        node = self._nodes.get(request.node)
        if node.is_gone:  # another file may have its path now
            raise SourceChangedError(f"{node.path} was removed or replaced since it was looked up")
        opened = self._operations.open(node.path, flags, request.uid, node.generation)
        return self._opened(node, opened)

    def create(self, request: Request) -> Answer:
        flags, mode, _, _ = CREATE_IN.unpack_from(request.body)
        path = self._context.child_path(request.node, request.name(CREATE_IN.size))
        opened = self._operations.create(path, flags, mode, request.uid)
        try:
            look = Look(self._operations.fgetattr(opened.handle))
        except BaseException:
            self._operations.release(opened.handle)
            raise
        node = self._nodes.tell(path, look)
        answer = self._opened(node, opened)

        def undo() -> None:
            answer.undo()
            self._nodes.forget([(node.id, 1)])

        return Answer(ENTRY_OUT.pack(*self._context.entry_fields(node, look)) + answer.body, undo)

    def read(self, request: Request, room: memoryview) -> int:
        """Fill the room with the requested bytes. Return their number."""
        handle, offset, size, *_ = READ_IN.unpack_from(request.body)
        if size > len(room):  # fewer bytes would be the end of the file to the kernel
            raise OSError(errno.EIO, f"a read of {size} bytes is longer than agreed")
        return self._operations.read_into(handle, room[:size], offset)

    def write(self, request: Request) -> bytes:
        handle, offset, size, *_ = WRITE_IN.unpack_from(request.body)
        content = request.body[WRITE_IN.size : WRITE_IN.size + size]
        return WRITE_OUT.pack(self._operations.write(handle, content, offset), 0)

    def fallocate(self, request: Request) -> bytes:
        handle, offset, length, mode, _ = FALLOCATE_IN.unpack_from(request.body)
        self._operations.fallocate(handle, offset, length, mode)
        return b""

    def flush(self, request: Request) -> bytes:
        self._operations.flush(FLUSH_IN.unpack_from(request.body)[0])
        return b""

    def fsync(self, request: Request) -> bytes:
        self._operations.fsync(FSYNC_IN.unpack_from(request.body)[0])
        return b""

    def release(self, request: Request) -> bytes:
        self._close(request.node, RELEASE_IN.unpack_from(request.body)[0])
        return b""

    def _opened(self, node: Node, opened: Opened) -> Answer:
        try:
            backing = 0 if opened.direct else self._passthrough.open(node, opened.handle)
        except BaseException:
            self._operations.release(opened.handle)
            raise
        self._nodes.opened(node, opened.handle)
        if opened.direct:
            flags = OpenFlag.DIRECT_IO
        elif backing:
            flags = OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH
        else:
            flags = OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH
        return Answer(OPEN_OUT.pack(opened.handle, flags, backing), lambda: self._close(node.id, opened.handle))

    def _close(self, node: int, handle: int) -> None:
        self._nodes.released(node, handle)
        self._passthrough.close(handle)
        self._operations.release(handle)
