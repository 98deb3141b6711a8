"""Body: the body of one request, taken as it comes, in blocks that are worth a write.

Threading: the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, hdrs
from aiohttp.web import BaseRequest, StreamResponse

from bentofs.mount.serve.connections import Activity, Phase

BLOCK = 1 << 20  # bytes
_LINGERS_SECONDS = 1.5  # for the rest of a refused body: some clients read no answer before they have sent all
_LINGERS_BYTES = 1 << 30


class Body:
    """The body of a request. A client that expects 100 (Continue) sends it only once a handler begins to take it."""

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
            aiohttp.ClientPayloadError: the body is malformed.
        """
        await self.begin()
        parts: list[bytes] = []
        size = 0
        try:
            while not self._content.at_eof():
                self._activity.enter(Phase.RECEIVING)
                part = await self._content.readany()
                parts.append(part)
                size += len(part)
                if size >= BLOCK:
                    self._activity.enter(Phase.WORKING)
                    yield b"".join(parts)
                    parts, size = [], 0
        except (ConnectionError, ClientPayloadError, asyncio.CancelledError):
            if size:  # what came is kept
                yield b"".join(parts)
            raise
        self._activity.enter(Phase.WORKING)
        if size:
            yield b"".join(parts)

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
