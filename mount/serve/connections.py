"""Connections: bounds how many clients are connected, and for how long a silent one is.

A connection is idle between two requests, and before its first one. It waits while its client sends or takes bytes, and
works while this server has something to do for it. If there are too many, idle ones are the first to go. Then those go
whose clients have sent or taken nothing for a while.

Threading: the event loop's thread only.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import BaseRequest, Response, Server, StreamResponse
from aiohttp.web_protocol import RequestHandler

log = logging.getLogger(__name__)

MOST = 512  # connections
_SWEEP_SECONDS = 1.0
_LAGS_SECONDS = 10.0  # without a byte, after which a client gives way to others


def _tells_of_us(record: logging.LogRecord) -> bool:
    """Return False for a malformed request: it is no fault of ours, and may hold a secret."""
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_LOGGER = logging.getLogger(f"{__name__}.aiohttp")
_LOGGER.addFilter(_tells_of_us)


class Phase(enum.Enum):
    """The activity of a connection. The value: how many seconds it may last without a byte; None for no limit."""

    NEW = 20.0  # it has sent no whole request yet
    IDLE = 75.0  # its next request has not come
    LISTENING = 76.0  # it gets an event now and then
    WORKING = None
    RECEIVING = 60.0
    SENDING = 600.0  # browsers pause downloads


class Activity:
    """The state of one connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.phase = Phase.NEW
        self.since = time.monotonic()  # of the phase, or of its last byte
        self._task: asyncio.Task[object] | None = None

    def enter(self, phase: Phase) -> None:
        """Enter a phase."""
        self.phase = phase
        self.since = time.monotonic()

    def begin(self) -> None:
        """Note that this task answers its next request."""
        self._task = asyncio.current_task()
        self.enter(Phase.WORKING)

    def cancel(self) -> None:
        """End the task that answers its request."""
        if self._task is not None:
            self._task.cancel()

    def went_on(self) -> None:
        """Note that bytes came or went."""
        self.since = time.monotonic()

    @property
    def is_idle(self) -> bool:
        """True if no request of it is being answered, apart from a page that listens: that one can come again."""
        return self.phase in (Phase.NEW, Phase.IDLE, Phase.LISTENING)

    def may_give_way(self, now: float) -> bool:
        """Return True if this connection may be closed for a new one: it is idle, or its client lets this server
        wait."""
        return self.is_idle or (self.phase.value is not None and now - self.since > _LAGS_SECONDS)

    def has_stalled(self, now: float) -> bool:
        """Return True if its time is over."""
        return self.phase.value is not None and now - self.since > self.phase.value


class BoundedServer(Server):
    """aiohttp's low-level server, with bounds."""

    def __init__(self, handler: Callable[[BaseRequest, Activity], Awaitable[StreamResponse]], **settings: object):
        """`settings`: those of aiohttp's RequestHandler."""
        super().__init__(self._handle, logger=_LOGGER, access_log=None, **settings)  # type: ignore[arg-type]
        self._handler = handler
        self._activities: dict[asyncio.BaseTransport, Activity] = {}
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """True if a request is being answered."""
        return any(not activity.is_idle for activity in list(self._activities.values()))

    def start(self) -> None:
        """Start to close the connections whose time is over."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def stop(self) -> None:
        """Stop that, and close the connections of pages that listen: they never end by themselves."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for activity in list(self._activities.values()):
            if activity.phase is Phase.LISTENING:
                activity.cancel()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Take a connection. If there are too many, close the one that has been idle longest; if none is, the one
        whose client has kept this server waiting longest."""
        super().connection_made(handler, transport)
        if len(self._activities) >= MOST:
            now = time.monotonic()
            others = [activity for activity in self._activities.values() if activity.may_give_way(now)]
            if not others:
                self._abort_soon(transport)
                return
            oldest = min(others, key=lambda activity: (not activity.is_idle, activity.since)).transport
            del self._activities[oldest]
            self._abort_soon(oldest)
        self._activities[transport] = Activity(transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        transport = self._connections.get(handler)
        if transport is not None:
            self._activities.pop(transport, None)
        super().connection_lost(handler, exc)

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        transport = request.transport
        activity = self._activities.get(transport) if transport is not None else None
        if activity is None:  # it has just gone
            return Response()
        activity.begin()
        try:
            response = await self._handler(request, activity)
            activity.enter(Phase.SENDING)
            await response.prepare(request)
            await response.write_eof()
            return response
        except ConnectionError:  # the client has gone: nothing to answer, and nothing to log
            self._abort(activity.transport)
            return Response()
        finally:
            activity.enter(Phase.IDLE)

    def _abort_soon(self, transport: asyncio.Transport) -> None:
        """Close a connection once aiohttp's task for it has begun, which fails if the connection is lost before."""
        asyncio.get_running_loop().call_soon(self._abort, transport)

    def _abort(self, transport: asyncio.Transport) -> None:
        """Close a connection at once. Do nothing if it is lost: asyncio would fail."""
        if transport.get_protocol() is not None:
            transport.abort()

    async def _sweep(self) -> None:
        with suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(_SWEEP_SECONDS)
                now = time.monotonic()
                for activity in list(self._activities.values()):
                    if activity.has_stalled(now):
                        log.debug("closed a connection that was silent for too long: %s", activity.phase.name)
                        self._abort(activity.transport)
