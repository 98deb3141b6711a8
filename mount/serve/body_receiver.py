"""BodyReceiver: receives a long body from its connection, straight into one block that is used again and again.

aiohttp copies each byte three times on its way to a block, into memory that is new each time. For a long body, that
takes longer than writing it.

The event loop waits for a block. The thread that writes it then receives the next ones itself, as long as they come
without delay. So the bytes are still in that core's cache when they are written, and no other thread is woken.
Meanwhile, the client fills the socket's buffer. aiohttp's parser does not see these bytes, so the connection must be
closed after the answer.

Threading: the event loop's thread. Only the iterators that `blocks` returns are for another thread. The event loop
waits for that thread before it calls anything here but `connection_lost`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

from bentofs.mount.serve.connections import Activity
from bentofs.store.util.aligned_buffer import page_buffer

_TURN = 16  # blocks that a thread takes before other work gets its turn
_WAIT_SECONDS = 0.01  # of a thread, for the next block


class BodyReceiver(asyncio.BufferedProtocol):
    """The protocol of a connection while the rest of a body comes."""

    def __init__(self, transport: asyncio.Transport, activity: Activity, first: bytes, left: int, block: int) -> None:
        """`first`: the first bytes of the body, which have come already; `left`: the number of bytes that follow;
        `block`: the size of a block in bytes. It is larger if more have come.

        The first block begins with `first`. So each block begins at a page boundary, in memory and in the file. Other
        copies take a tenth longer.
        """
        self._transport = transport
        self._activity = activity
        self._owner = transport.get_protocol()
        self.left = left
        self._size = max(block, len(first) // block * block + block)
        self._block = page_buffer(self._size)
        self._block[: len(first)] = first
        self._filled = len(first)
        self._is_lost = False
        self._changed = asyncio.Event()
        transport.pause_reading()
        transport.set_protocol(self)
        self._socket: socket.socket = transport.get_extra_info("socket").dup()
        self._socket.settimeout(_WAIT_SECONDS)
        self._low_water = 1

    @property
    def _is_ready(self) -> bool:
        return self._filled == self._size or not self.left or self._is_lost

    async def blocks(self) -> Iterator[memoryview] | None:
        """Wait for a block. Return it and those that follow it without delay, for another thread; None at the end.

        A block is whole, or has all up to the end of the body. It holds until the next one. If the client has gone,
        they end where it did.
        """
        if not self._is_ready:
            self._wake_at(1)
            self._transport.resume_reading()
        while not self._is_ready:
            self._changed.clear()
            await self._changed.wait()
        return self._coming() if self._filled else None

    def rest(self) -> memoryview:
        """Return what has come since the last block, after `blocks` was cancelled."""
        return self._block[: self._filled]

    def end(self) -> None:
        """Give the connection back, with the bytes that still come. A second call does nothing."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._owner)
            if self.left:
                self._wake_at(1)
                self._transport.resume_reading()

    def close(self) -> None:
        """Close this object's descriptor of the connection."""
        self._socket.close()

    def _coming(self) -> Iterator[memoryview]:
        for _ in range(_TURN):
            content, self._filled = self._block[: self._filled], 0
            yield content
            if not self._receive():
                return

    def _receive(self) -> bool:
        """Receive the next block. Return False if it does not come now. The part that has come stays in the block."""
        wanted = min(self._size, self.left)
        if not wanted or self._is_lost:
            return False
        try:
            self._wake_at(wanted)
            while self._filled < wanted:
                count = self._socket.recv_into(self._block[self._filled : wanted])
                self._filled += count
                self.left -= count
                if not count:
                    self._is_lost = True
                    break
        except TimeoutError:
            return False
        except OSError:
            self._is_lost = True
        return self._filled > 0

    def _wake_at(self, count: int) -> None:
        """Let the kernel wake a reader once so many bytes are there."""
        if self._low_water != count:
            self._low_water = count
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the room for the next bytes."""
        return self._block[self._filled : min(self._size, self._filled + self.left)]

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of bytes that came."""
        self._filled += nbytes
        self.left -= nbytes
        self._activity.went_on()
        if self._is_ready:
            self._transport.pause_reading()
            self._changed.set()

    def eof_received(self) -> bool:
        """Close the connection: the client ends it within the body."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell aiohttp, too."""
        self._is_lost = True
        self._changed.set()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Tell aiohttp, which writes answers."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """Tell aiohttp, which writes answers."""
        self._owner.resume_writing()
