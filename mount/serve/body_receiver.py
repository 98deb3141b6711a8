"""BodyReceiver: receives a long body from its connection, straight into two blocks that are used by turns.

aiohttp copies each byte three times on its way to a block, into memory that is new each time. For a long body, that
takes longer than writing it.

While one block is written, the next one is received. aiohttp's parser does not see these bytes, so the connection must
be closed after the answer.

Threading: the event loop's thread only.
"""

from __future__ import annotations

import asyncio

from bentofs.mount.serve.connections import Activity
from bentofs.store.util.aligned_buffer import page_buffer


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
        self._filling, self._other = page_buffer(self._size), page_buffer(self._size)
        self._filling[: len(first)] = first
        self._filled = len(first)
        self._is_lost = False
        self._changed = asyncio.Event()
        transport.set_protocol(self)
        transport.resume_reading()

    @property
    def _is_ready(self) -> bool:
        return self._filled == self._size or not self.left or self._is_lost

    async def block(self) -> memoryview:
        """Return the next bytes: a whole block, or all up to the end of the body; none at the end. They hold until the
        next call. If the client has gone, they end where it did."""
        while not self._is_ready:
            self._changed.clear()
            await self._changed.wait()
        content, self._filling, self._other = self._filling[: self._filled], self._other, self._filling
        self._filled = 0
        if self.left and not self._is_lost:
            self._transport.resume_reading()
        return content

    def rest(self) -> memoryview:
        """Return what has come since the last block, after `block` was cancelled."""
        return self._filling[: self._filled]

    def end(self) -> None:
        """Give the connection back, with the bytes that still come. A second call does nothing."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._owner)
            if self.left:
                self._transport.resume_reading()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return the room for the next bytes."""
        return self._filling[self._filled : min(self._size, self._filled + self.left)]

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
