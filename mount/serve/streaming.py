"""Streaming: sends ranges of a file, as fast as its client takes them, within a bounded memory.

Each block is read into memory, checked there (`store.storage.pinned`), and sent only then. sendfile would read after
the check: bytes of a file that is changed in place would go out.

A client begins with a small buffer, and gets a large one while it keeps up. Large buffers are few: they are for the
clients that gain by them. The event loop keeps no copy beside the buffer but the part that the socket did not take.

Threading: the event loop's thread only, apart from the reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from aiohttp.web import BaseRequest, StreamResponse

from bentofs.mount.serve.connections import Activity
from bentofs.mount.serve.ranges import Span
from bentofs.mount.serve.site import Site
from bentofs.mount.view.traffic import Count
from bentofs.store.formats.pieces import Piece
from bentofs.store.util.aligned_buffer import page_buffer

_SMALL, _LARGE = 128 << 10, 1 << 20  # bytes
_MOST_LARGE = 16  # large buffers, of all clients
_KEPT = 4  # that nobody uses
_LAGS_SECONDS = 0.05  # that a client takes for a block, if it is a slow one


class Buffers:
    """The large buffers of one server."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._taken = 0

    def take(self) -> memoryview | None:
        """Return a large buffer; None if too many are taken. Give it back with `give_back`."""
        if self._taken >= _MOST_LARGE:
            return None
        self._taken += 1
        return self._free.pop() if self._free else page_buffer(_LARGE)

    def give_back(self, buffer: memoryview) -> None:
        """Give a buffer back."""
        self._taken -= 1
        if len(self._free) < _KEPT:
            self._free.append(buffer)


class Streamer:
    """Sends the bytes of pieces."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._buffers = Buffers()

    async def send(
        self,
        request: BaseRequest,
        response: StreamResponse,
        piece: Piece,
        parts: Iterable[tuple[bytes, Span]],
        count: Count,
        activity: Activity,
    ) -> None:
        """Send parts of a piece, each with the bytes that come before it. `count`: counts the reads.

        Raises:
            StoreError: the piece cannot be read any more.
            ConnectionError: the client has gone.
        """
        transport = request.transport
        if transport is None:
            raise ConnectionResetError
        transport.set_write_buffer_limits(high=0)  # a write waits until the socket has taken all of it
        small, lags = page_buffer(_SMALL), True
        for before, span in parts:
            if before:
                await response.write(before)
            offset, rest = span.start, span.length
            while rest:
                large = self._buffers.take() if rest > _SMALL and not lags else None
                try:
                    view = (small if large is None else large)[:rest]
                    await self._site.read(piece.read_into, [view], offset)
                    begun = time.monotonic()
                    await response.write(view)
                    await request.writer.drain()
                    lags = time.monotonic() - begun > _LAGS_SECONDS
                finally:
                    if large is not None:
                        self._buffers.give_back(large)
                offset, rest = offset + len(view), rest - len(view)
                count.reads += 1
                count.bytes += len(view)
                activity.went_on()
