"""Server: reads requests from the device, calls their handlers, and replies.

Each thread has a buffer for requests, and takes another one for the file bytes of a read (`request_buffers.py`). File
bytes go to the kernel straight from there, after their header. A thread that waits for an upload to be imported keeps
neither.

The kernel tolerates no wrong reply. If the length is not the sum of the parts, or the error is above 511, write() fails
and the caller waits for ever.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from bentofs.mount.errors import errno_of
from bentofs.mount.kernel.native.handlers.context import Context
from bentofs.mount.kernel.native.handlers.files import Files
from bentofs.mount.kernel.native.handlers.folders import Folders
from bentofs.mount.kernel.native.handlers.lookups import Lookups
from bentofs.mount.kernel.native.handlers.names import Names
from bentofs.mount.kernel.native.handlers.xattrs import ExtendedAttributeHandlers
from bentofs.mount.kernel.native.handshake import BUFFER_SIZE, MAX_TRANSFER
from bentofs.mount.kernel.native.interrupts import Interrupts
from bentofs.mount.kernel.native.node_table import NodeTable
from bentofs.mount.kernel.native.passthrough import Passthrough
from bentofs.mount.kernel.native.protocol import INTERRUPT_IN, OUT_HEADER, Opcode
from bentofs.mount.kernel.native.request import Answer, Request
from bentofs.mount.kernel.native.request_buffers import Buffers, RequestBuffer
from bentofs.mount.kernel.operations import Operations
from bentofs.mount.kernel.workers import Workers
from bentofs.store.util.memory_budget import MemoryBudget

log = logging.getLogger(__name__)

_PAGE = mmap.PAGESIZE
_HEADER_AT = _PAGE - OUT_HEADER.size  # so that file bytes begin at a page boundary
_MAX_ERRNO = 511
_ENDED = (errno.ENODEV, errno.ECONNABORTED)  # errors of read() after the mount has ended
_AGAIN = (errno.EINTR, errno.EAGAIN, errno.ENOENT)  # ENOENT: the request was withdrawn
_Handler = Callable[[Request], "bytes | Answer | None"]


class _Call(NamedTuple):
    """The handler of one kind of request."""

    name: str  # for the log
    handler: _Handler
    may_be_interrupted: bool = False
    has_reply: bool = True


class Caller(threading.local):
    """The user whose request this thread serves."""

    uid = 0


class Server:
    """Serves one device."""

    def __init__(
        self,
        device: int,
        operations: Operations,
        workers: Workers,
        caller: Caller,
        passthrough: Passthrough,
        budget: MemoryBudget,
    ) -> None:
        self._device = device
        self._caller = caller
        self.nodes = NodeTable(budget)
        context = Context(operations, self.nodes)
        self._interrupts = Interrupts(lambda unique: self._reply_error(unique, errno.EINTR))
        self._files = Files(context, passthrough)
        self._calls = self._table(context, operations, self._files)
        self._handle = workers.guard("request", self._serve, _failed)
        self._buffers = Buffers(BUFFER_SIZE, _PAGE + MAX_TRANSFER, budget)

    def serve(self) -> None:
        """Serve requests until the mount ends."""
        serve_one = self.one_by_one()
        while serve_one():
            pass

    def one_by_one(self) -> Callable[[], bool]:
        """Return a function that serves one request, for one thread. It returns False when the mount has ended."""
        device, handle = self._device, self._handle
        buffer = self._buffers.for_requests()
        views = [buffer.view]

        def serve_one() -> bool:
            try:
                received = os.readv(device, views)
            except OSError as error:
                if error.errno in _AGAIN:
                    return True
                if error.errno not in _ENDED:
                    log.exception("requests cannot be read any more")
                return False
            handle(buffer, received)
            buffer.was_used(received)
            return True

        return serve_one

    def watched(self) -> Callable[[], bool]:
        """Return a function that tells whether requests wait for a thread to take them."""
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        return lambda: any(event & select.POLLIN for _, event in poll.poll(0))

    def _serve(self, buffer: RequestBuffer, received: int) -> int:
        request = Request(buffer.view, received)
        call = self._calls.get(request.opcode)
        if call is None:
            self._reply_error(request.unique, errno.ENOSYS)
            return 0
        unique, self._caller.uid = request.unique, request.uid
        if call.may_be_interrupted:
            self._interrupts.begin(unique, request.thread)
        answer: bytes | Answer | None = None
        number = size = 0
        try:
            if request.opcode == Opcode.READ:
                room = self._buffers.take_room()
                size = self._files.read(request, room[_PAGE:])
            else:
                if request.opcode == Opcode.FLUSH:
                    buffer.free()  # a close may take long, and the writes before it filled the buffer
                answer = call.handler(request)
        except BaseException as error:
            number = errno_of(error, call.name)
            error.__traceback__ = None  # the error may be raised many times, and would keep the frames of each time
        if call.may_be_interrupted and not self._interrupts.finish(unique):
            _take_back(answer)
        elif not call.has_reply:
            pass
        elif number:
            self._reply_error(unique, number)
        elif request.opcode == Opcode.READ:
            OUT_HEADER.pack_into(room, _HEADER_AT, OUT_HEADER.size + size, 0, unique)
            self._write([room[_HEADER_AT : _PAGE + size]])
            self._buffers.give_back(room)
        else:
            body = (answer.body if isinstance(answer, Answer) else answer) or b""
            if not self._write([OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique), body]):
                _take_back(answer)
        return 0

    def _reply_error(self, unique: int, number: int) -> None:
        number = number if 0 < number <= _MAX_ERRNO else errno.EIO
        self._write([OUT_HEADER.pack(OUT_HEADER.size, -number, unique)])

    def _write(self, parts: list[Any]) -> bool:
        """Send a reply. Return False if nobody waits for it any more."""
        try:
            os.writev(self._device, parts)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *_ENDED):
                log.exception("the kernel refused a reply")
            return False
        return True

    def _interrupt(self, request: Request) -> None:
        self._interrupts.interrupt(INTERRUPT_IN.unpack_from(request.body)[0])

    def _table(self, context: Context, operations: Operations, files: Files) -> dict[int, _Call]:
        lookups, folders, names = Lookups(context), Folders(context), Names(context)
        xattrs = ExtendedAttributeHandlers(context)
        handlers: dict[Opcode, _Handler] = {
            Opcode.SETATTR: lookups.setattr,
            Opcode.RELEASEDIR: folders.releasedir,
            Opcode.FSYNCDIR: folders.fsyncdir,
            Opcode.CREATE: files.create,
            Opcode.WRITE: files.write,
            Opcode.FALLOCATE: files.fallocate,
            Opcode.FSYNC: files.fsync,
            Opcode.RELEASE: files.release,
            Opcode.MKDIR: names.mkdir,
            Opcode.UNLINK: names.unlink,
            Opcode.RMDIR: names.rmdir,
            Opcode.RENAME: names.rename,
            Opcode.RENAME2: names.rename2,
            Opcode.MKNOD: names.mknod,
            Opcode.SYMLINK: names.symlink,
            Opcode.LINK: names.link,
            Opcode.SETXATTR: xattrs.setxattr,
            Opcode.REMOVEXATTR: xattrs.removexattr,
        }
        if operations.takes_uploads:  # else a close has no effect: the kernel gets ENOSYS once and never asks again
            handlers[Opcode.FLUSH] = files.flush
        changing_nothing: dict[Opcode, _Handler] = {
            Opcode.LOOKUP: lookups.lookup,
            Opcode.GETATTR: lookups.getattr,
            Opcode.READLINK: lookups.readlink,
            Opcode.ACCESS: lookups.access,
            Opcode.STATFS: lookups.statfs,
            Opcode.GETXATTR: xattrs.getxattr,
            Opcode.LISTXATTR: xattrs.listxattr,
            Opcode.OPENDIR: folders.opendir,
            Opcode.READDIR: folders.readdir,
            Opcode.READDIRPLUS: folders.readdirplus,
            Opcode.OPEN: files.open,
            Opcode.READ: _nothing,  # `_serve` reads the bytes
        }
        silent: dict[Opcode, _Handler] = {
            Opcode.FORGET: lookups.forget,
            Opcode.BATCH_FORGET: lookups.batch_forget,
            Opcode.INTERRUPT: self._interrupt,
        }
        return {
            **{code: _Call(code.name.lower(), handler) for code, handler in handlers.items()},
            **{
                code: _Call(code.name.lower(), handler, may_be_interrupted=True)
                for code, handler in changing_nothing.items()
            },
            **{code: _Call(code.name.lower(), handler, has_reply=False) for code, handler in silent.items()},
        }


def _nothing(_request: Request) -> None:
    return None


def _take_back(answer: bytes | Answer | None) -> None:
    if isinstance(answer, Answer):
        answer.undo()


def _failed(error: BaseException, operation: str) -> int:
    """Log an exception that leaves `_serve`. None should leave it."""
    return -errno_of(error, operation)
