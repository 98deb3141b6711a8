"""Body: the body of one request, taken as it comes, in blocks that are worth a write.

Threading: the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import ClassVar, TypeVar

from aiohttp import hdrs
from aiohttp.web import BaseRequest, RequestPayloadError, StreamResponse

from bentofs.mount.serve.connections import Activity, Phase

BLOCK, _SMALL_BLOCK = 1 << 20, 128 << 10  # bytes
_MOST_LARGE = 16  # bodies that are taken in large blocks at once
_LINGERS_SECONDS = 1.5  # for the rest of a refused body: some clients read no answer before they have sent all
_LINGERS_BYTES = 1 << 30

_T = TypeVar("_T")


class Body:
    """The body of a request. A client that expects 100 (Continue) sends it only once a handler begins to take it."""

    _taken: ClassVar[int] = 0  # bodies that are taken now

    def __init__(self, request: BaseRequest, activity: Activity) -> None:
        self._request = request
        self._content = request.content
        self._activity = activity
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
        return self._request.body_exists and not self._content.is_eof()

    async def begin(self) -> None:
        """Ask for the body, if the client waits for that."""
        if self._is_held:
            self._is_held = False
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the body in blocks.

        Raises:
            ConnectionError: the client has gone.
            RequestPayloadError: the body is malformed.
        """
        await self.begin()
        parts: list[bytes] = []
        size = 0
        Body._taken += 1
        block = BLOCK if Body._taken <= _MOST_LARGE else _SMALL_BLOCK
        try:
            while not self._content.at_eof():
                part = await self.waiting(self._content.readany())
                parts.append(part)
                size += len(part)
                if size >= block:
                    yield b"".join(parts)
                    parts, size = [], 0
        except (ConnectionError, RequestPayloadError, asyncio.CancelledError):
            if size:  # what came is kept
                yield b"".join(parts)
            raise
        finally:
            Body._taken -= 1
        if size:
            yield b"".join(parts)

    async def waiting(self, coming: Awaitable[_T]) -> _T:
        """Wait for a part of the body. The client has a limited time for it."""
        self._activity.enter(Phase.RECEIVING)
        try:
            return await coming
        finally:
            self._activity.enter(Phase.WORKING)

    async def whole(self, most: int) -> bytes | None:
        """Return the whole body; None if it is longer than so many bytes."""
        content = b""
        async for block in self.blocks():
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
        self._activity.enter(Phase.RECEIVING)
        try:
            while not self._content.at_eof() and size < _LINGERS_BYTES:
                left = deadline - time.monotonic()
                size += len(await asyncio.wait_for(self._content.readany(), max(0.0, left)))
        except (TimeoutError, asyncio.TimeoutError):
            pass
