"""S3Library: s3fs and aiobotocore, loaded when they are needed, since that takes a second.

Threading: any thread. Requests run in the library's own thread, so that a body may be read from another bucket. Create
it only after a fork.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

from aiobotocore.session import AioSession
from botocore.utils import parse_timestamp
from s3fs import S3FileSystem

from bentofs.store.clients.s3_signature import GivenCredentials
from bentofs.store.util.cancel import CancelTokens, holding, refuse_if_stopped

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_BUILDING_SECONDS = 120.0  # limit for building the client: on a busy machine it takes longer than a request may


class S3Library:
    """The library's client."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """`arguments`: of s3fs.

        Raises:
            TypeError: s3fs or botocore does not know one.
        """
        self.fs = S3FileSystem(**arguments, use_listings_cache=False, skip_instance_cache=True, asynchronous=True)
        self.fs.retries = 1
        self.fs.session = AioSession(**self.fs.kwargs)
        parsers = self.fs.session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_time_of)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_of_no_request)
        self._thread = threading.Thread(target=self._loop.run_forever, name="s3", daemon=True)
        self._thread.start()
        self._lock = threading.Lock()  # held while the client is built

    def build_client(self, stops: CancelTokens = ()) -> Any:
        """Return the library's client. The first call builds it. Raises what the library raises, and CancelledError."""
        with holding(self._lock, stops):
            return self.fs._s3 or self.wait(self.fs.set_session(), stops, silence=_BUILDING_SECONDS)

    @property
    def certificates(self) -> str | None:
        """Return the file with the trusted authorities; None for the usual ones."""
        return cast("str | None", self.fs.session.get_config_variable("ca_bundle"))

    async def credentials(self) -> Any:
        """Return the current credentials; None if there are none."""
        if self.fs.key and self.fs.secret:
            return GivenCredentials(self.fs.key, self.fs.secret, self.fs.token)
        found = await self.fs.session.get_credentials()
        return await found.get_frozen_credentials() if found is not None else None

    def wait(
        self,
        request: Any,
        stops: CancelTokens = (),
        *,
        touched: Callable[[], float] | None = None,
        silence: float,
        limit: float = math.inf,
    ) -> Any:
        """Return the answer to a request. Raises TimeoutError if the server is silent for `silence` seconds, or takes
        more than `limit` seconds. `touched`: the time of the last byte sent or received, if known (monotonic).
        """
        future = asyncio.run_coroutine_threadsafe(request, self._loop)
        begun = time.monotonic()
        try:
            while True:
                done, _ = concurrent.futures.wait([future], _POLL_SECONDS)
                if done:
                    return future.result()
                refuse_if_stopped(stops)
                # The library has timeouts for connecting and for each read of an answer. It has none for sending, and
                # none for an answer that trickles in.
                now = time.monotonic()
                if now - max(begun, touched() if touched is not None else begun) > silence:
                    raise TimeoutError(f"the server was silent for {silence:g} s")
                if now - begun > limit:
                    raise TimeoutError(f"the server takes more than {limit:.0f} s")
        finally:
            future.cancel()

    def close(self) -> None:
        """Close the connections."""
        session = self.fs._s3
        if session is not None:
            with suppress(Exception):  # all results are in; only sockets are left
                asyncio.run_coroutine_threadsafe(session.close(), self._loop).result(5)
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)


async def _end_others() -> None:
    """Cancel the other tasks of the loop, and wait for their end. They belong to requests that were given up."""
    others = asyncio.all_tasks() - {task for task in [asyncio.current_task()] if task is not None}
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others, timeout=2)


def _time_of(value: Any) -> datetime:
    """Parse a time of a server. The library's parser takes longer for a listing than the server takes to answer."""
    if isinstance(value, str) and value.endswith("Z"):
        with suppress(ValueError):
            return datetime.fromisoformat(f"{value[:-1]}+00:00")
    return cast("datetime", parse_timestamp(value))


def _of_no_request(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle an exception in the client's thread that belongs to no request. When a connection breaks, aiohttp loses an
    exception of the writing task. The request has then failed by another exception, which was raised."""
    error = context.get("exception")
    names = {kind.__name__ for kind in type(error).__mro__}
    if error is None or isinstance(error, (OSError, asyncio.CancelledError)) or "ClientError" in names:
        log.debug("%s: %r", context.get("message"), error)
    else:
        loop.default_exception_handler(context)
