"""Body: the body of one request, taken as it comes, in blocks that are worth a write.

Threading: the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import ClassVar, TypeVar

from aiohttp import hdrs
from aiohttp.web import BaseRequest, RequestPayloadError, StreamResponse

from bentofs.mount.serve.body_receiver import BodyReceiver
from bentofs.mount.serve.connections import Activity, Phase

BLOCK, _SMALL_BLOCK = 1 << 20, 128 << 10  # bytes
_DIRECT = 4 << 20  # bytes; a body of this length or more is received without aiohttp
_MOST_LARGE = 16  # bodies that are taken in large blocks at once
_LINGERS_SECONDS = 1.5  # for the rest of a refused body: some clients read no answer before they have sent all
_LINGERS_BYTES = 1 << 30

# Blocks of a body, for one thread that takes one after the other. Each holds until the next one.
Blocks = Iterable[bytes | memoryview]
_T = TypeVar("_T")


class Body:
    """The body of a request. A client that expects 100 (Continue) sends it only once a handler begins to take it."""

    _taken: ClassVar[int] = 0  # bodies that are taken now

    def __init__(self, request: BaseRequest, activity: Activity) -> None:
        self._request = request
        self._content = request.content
        self._activity = activity
        self._receiver: BodyReceiver | None = None  # if the body came without aiohttp
        self._is_held = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.body_exists

    @property
    def size(self) -> int | None:
        """Return the length that the client declared; None if it declared none."""
        if not self._request.body_exists:
            return 0
        return self._request.content_length

    @property
    def is_coming(self) -> bool:
        """True if a part of it may still come."""
        if self._receiver is not None:
            return self._receiver.left > 0
        return self._request.body_exists and not self._content.is_eof()

    def end(self, response: StreamResponse) -> None:
        """Give the connection back to aiohttp: the handler has made this response, and takes no more."""
        if self._receiver is not None:
            self._receiver.end()
            if not self._receiver.left:
                self._content.feed_eof()  # aiohttp has not seen all bytes, and would wait for them
            if not response.prepared:
                response.force_close()  # aiohttp would take the next request for bytes of this body

    def close(self) -> None:
        """End. Nothing of the body may be taken any more."""
        if self._receiver is not None:
            self._receiver.close()

    async def begin(self) -> None:
        """Ask for the body, if the client waits for that."""
        if self._is_held:
            self._is_held = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def blocks(self) -> AsyncIterator[Blocks]:
        """Yield the body in blocks. A thread takes those that are yielded together, and may wait for some of them.

        Raises:
            ConnectionError: the client has gone.
            RequestPayloadError: the body is malformed.
        """
        await self.begin()
        Body._taken += 1
        block = BLOCK if Body._taken <= _MOST_LARGE else _SMALL_BLOCK
        try:
            receiver = self._receiver = self._direct(block)
            async for blocks in self._parsed(block) if receiver is None else self._received(receiver):
                yield blocks
        finally:
            Body._taken -= 1

    def _direct(self, block: int) -> BodyReceiver | None:
        """Return a receiver for a long body that is neither encrypted nor chunked; None for others."""
        request, transport = self._request, self._request.transport
        length = request.content_length
        if length is None or length < _DIRECT or transport is None or request.secure or self._content.exception():
            return None
        first = self._content.read_nowait(-1)
        return BodyReceiver(transport, self._activity, first, length - self._content.total_bytes, block)

    async def _received(self, receiver: BodyReceiver) -> AsyncIterator[Blocks]:
        try:
            while (blocks := await self.waiting(receiver.blocks())) is not None:
                yield blocks
        except asyncio.CancelledError:
            if rest := receiver.rest():  # what came is kept
                yield (rest,)
            raise
        if receiver.left:
            raise ConnectionResetError

    async def _parsed(self, block: int) -> AsyncIterator[tuple[bytes]]:
        parts: list[bytes] = []
        size = 0
        try:
            while not self._content.at_eof():
                part = await self.waiting(self._content.readany())
                parts.append(part)
                size += len(part)
                if size >= block:
                    yield (b"".join(parts),)
                    parts, size = [], 0
        except (ConnectionError, RequestPayloadError, asyncio.CancelledError):
            if size:  # what came is kept
                yield (b"".join(parts),)
            raise
        if size:
            yield (b"".join(parts),)

    async def waiting(self, coming: Awaitable[_T]) -> _T:
        """Wait for a part of the body. The client has a limited time for it."""
        self._activity.enter(Phase.RECEIVING)
        try:
            return await coming
        finally:
            self._activity.enter(Phase.WORKING)

    async def whole(self, most: int) -> bytes | None:
        """Return the whole body; None if it is longer than so many bytes."""
        await self.begin()
        content = b""
        async for (block,) in self._parsed(_SMALL_BLOCK):
            content += block
            if len(content) > most:
                return None
        return content

    async def answer_early(self, response: StreamResponse) -> None:
        """Send a response before the whole body has come. Take some more of it, so that the client sees the
        response."""
        response.force_close()
        await response.prepare(self._request)
        await response.write_eof()
        if self._is_held:
            return
        deadline, size = time.monotonic() + _LINGERS_SECONDS, 0
        most = min(_LINGERS_BYTES, self._receiver.left) if self._receiver is not None else _LINGERS_BYTES
        self._activity.enter(Phase.RECEIVING)
        try:
            while not self._content.at_eof() and size < most:
                left = deadline - time.monotonic()
                size += len(await asyncio.wait_for(self._content.readany(), max(0.0, left)))
        except (TimeoutError, asyncio.TimeoutError):
            pass
