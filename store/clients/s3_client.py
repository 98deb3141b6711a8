"""S3Client: requests to one bucket in S3, or in what speaks its protocol, each tried once.

Endpoint, region and credentials come from where all of AWS's tools take them, or from a location: user and password of
its URL, and parameters as s3fs knows them (`key`, `secret`, `endpoint_url`, `region`, `profile`, `anon`, ...).

s3fs makes the client; what is asked of it are S3's own operations, since conditions, and listings a page at a time, are
in no file system's interface, and since its ways of writing commit what an exception has cut short (its issue 154).
What is read of objects goes past it, once it has shown how (`store.clients.s3_ranges`).

Threading: any thread; requests run in a thread of the client's own, so that a body may be read from another bucket, or
in the thread that asks. Not before a fork.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import datetime
from functools import cached_property
from typing import Any, cast

from botocore.credentials import ReadOnlyCredentials
from botocore.utils import parse_timestamp

from bentofs.store.clients.request_body import Body
from bentofs.store.clients.s3_ranges import S3Ranges, manner_of
from bentofs.store.location import Location
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped

log = logging.getLogger(__name__)

_CONNECTIONS = 64
_POLL_SECONDS = 0.2
_CHUNK = 256 << 10  # bytes
_LEAST_RATE = 16 << 10  # bytes a second, below which a server counts as hung
_SENDING_SECONDS = 30.0  # of silence, at least, while a body is sent: the system takes some megabytes before they go
_WRITE_OPTIONS = {"acl": "ACL", "cache-control": "CacheControl", "storage-class": "StorageClass"}
_LESSONS = 5  # times that it is learnt how to ask past the library, at most
_TIMEOUTS = ("connect_timeout", "read_timeout")

# Where the requests for objects of a task of the event loop are noted: URL and headers.
_noted: ContextVar[list[tuple[str, Mapping[str, Any]]]] = ContextVar("noted")


class S3Client:
    """The requests to one bucket."""

    def __init__(self, location: Location, *, connect_seconds: float, silence_seconds: float) -> None:
        """`connect_seconds`: for a connection to be made; `silence_seconds`: after which a server that neither takes
        nor gives a byte counts as hung. The location's parameters `connect_timeout` and `read_timeout` go before.

        Raises:
            TypeError: s3fs or botocore do not know a parameter.
        """
        # Here, since they take a second to load.
        from aiobotocore.session import AioSession
        from s3fs import S3FileSystem

        self.bucket = location.host
        params = dict(location.params)
        self.write_options = {name: params.pop(key) for key, name in _WRITE_OPTIONS.items() if key in params}
        config: dict[str, Any] = {
            "connect_timeout": connect_seconds,
            "read_timeout": silence_seconds,
            "retries": {"total_max_attempts": 1},  # whoever asks knows when to ask again
            "max_pool_connections": _CONNECTIONS,
            "user_agent": "bentofs",  # botocore would compose its own one anew for each request
        }
        # What botocore adds to every request since 1.36 breaks servers that are older than that. What arrives is
        # compared by its MD5 here.
        for option in ("request_checksum_calculation", "response_checksum_validation"):
            if f"AWS_{option.upper()}" not in os.environ:
                config[option] = "when_required"
        given = {name: float(params.pop(name)) for name in _TIMEOUTS if name in params}
        config |= given
        self._connect_seconds, self._read_seconds = float(config["connect_timeout"]), float(config["read_timeout"])
        self.silence_seconds = self._connect_seconds + self._read_seconds
        least = 0.0 if "read_timeout" in given else _SENDING_SECONDS
        self._sending_seconds = max(self.silence_seconds, least)
        own = {name: params.pop(name, {}) for name in ("config_kwargs", "client_kwargs")}
        config |= own["config_kwargs"]
        region = params.pop("region", params.pop("region_name", None))
        client = {**({"region_name": region} if region else {}), **own["client_kwargs"]}
        if isinstance(params.get("anon"), str):
            params["anon"] = params["anon"].lower() in ("1", "true", "yes")
        login = {"key": location.user, "secret": location.password}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="s3", daemon=True)
        self._fs = S3FileSystem(
            **{**login, **params},
            client_kwargs=client,
            config_kwargs=config,
            use_listings_cache=False,
            skip_instance_cache=True,
            asynchronous=True,
        )
        self._fs.retries = 1
        self._fs.session = AioSession(**self._fs.kwargs)
        parsers = self._fs.session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_time_of)
        # What may be asked for past the library: nothing, as long as its ways are not known, or if they were changed.
        self._ranges: S3Ranges | None = None
        self._lessons = 0 if any(own.values()) else _LESSONS
        self._loop.set_exception_handler(_of_no_request)
        self._thread.start()

    @cached_property
    def endpoint(self) -> str:
        """The URL of the server; raises what the library raises."""
        client = self._wait(self._fs.set_session())
        return str(client.meta.endpoint_url)

    def ask(
        self, method: str, *, body: Body | None = None, stops: CancelTokens = (), **arguments: Any
    ) -> dict[str, Any]:
        """One request, for one of S3's operations.

        Raises:
            Exception: what the libraries raise (`store.clients.error_classes`); a TimeoutError after silence.
            StoreError: what stopped the reading of `body`.
            CancelledError: one of `stops` is set.
        """
        extra: dict[str, Any] = {}
        if body is not None:
            body.seek(0)
            extra["Body"] = body
        try:
            request = self._fs._call_s3(method, Bucket=self.bucket, **arguments, **extra)
            touched = None if body is None else lambda: body.touched
            silence = None if body is None else self._sending_seconds
            return cast("dict[str, Any]", self._wait(request, stops, touched=touched, silence=silence))
        except Exception as error:
            if body is not None and body.error is not None:
                raise body.error from error
            raise

    def fetch(
        self, key: str, start: int, end: int, *, etag: str = "", stops: CancelTokens = ()
    ) -> tuple[bytes | bytearray, dict[str, Any]]:
        """The bytes [start, end) of an object, which may be fewer, and what the server says of it: `ETag` and
        `LastModified`. Errors as `ask`.

        `etag`: what the object must have; not every server heeds that.
        """
        limit = self.silence_seconds + (end - start) / _LEAST_RATE
        ranges = None if stops else self._ranges  # a request of its own goes on until it ends
        if ranges is not None:
            found = ranges.fetch(key, start, end, etag=etag, seconds=limit)
            if found is not None:
                return found
        answer = self._fetch(key, start, end, etag, stops, limit)
        if ranges is not None and self._ranges is ranges:  # what was learnt is not enough, or not true any more
            self._lessons -= 1
            self._ranges = None
            ranges.close()
        return answer

    def _fetch(
        self, key: str, start: int, end: int, etag: str, stops: CancelTokens, limit: float
    ) -> tuple[bytes, dict[str, Any]]:
        """`fetch`, by the library."""
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        chunks: list[bytes] = []
        received = 0
        touched = time.monotonic()

        async def get() -> dict[str, Any]:
            nonlocal received, touched
            if self._lessons and self._ranges is None:
                client = await self._fs.set_session()
                client.meta.events.register("before-send.s3.GetObject", _note_request, unique_id="bentofs")
            noted: list[tuple[str, Mapping[str, Any]]] = []
            _noted.set(noted)
            answer = await self._fs._call_s3(
                "get_object", Bucket=self.bucket, Key=key, Range=f"bytes={start}-{end - 1}", **condition
            )
            if noted:
                self._learn(key, noted[-1])
            async with answer["Body"] as stream:
                while chunk := await stream.read(_CHUNK):
                    chunks.append(chunk)
                    received += len(chunk)
                    touched = time.monotonic()
                    if received > end - start:
                        raise ConnectionError(f"the server sends more than the {end - start} bytes it was asked for")
            return cast("dict[str, Any]", answer)

        answer = self._wait(get(), stops, touched=lambda: touched, limit=limit)
        return b"".join(chunks), answer  # here, since the thread that receives is the one that all wait for

    def page(self, prefix: str, more: str = "", *, delimiter: str = "") -> tuple[dict[str, Any], str]:
        """A part of the listing of what has a key that begins with `prefix`, and what to ask on with; empty at the end.

        `delimiter`: what is behind one is told as a common prefix.
        """
        asked: dict[str, Any] = {"ContinuationToken": more} if more else {}
        if delimiter:
            asked["Delimiter"] = delimiter
        answer = self.ask("list_objects_v2", Prefix=prefix, **asked)
        return answer, str(answer.get("NextContinuationToken") or "")

    def close(self) -> None:
        """End connections."""
        if self._ranges is not None:
            self._ranges.close()
        session = self._fs._s3
        if session is not None:
            with suppress(Exception):  # what counted has been told; only sockets are left
                asyncio.run_coroutine_threadsafe(session.close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _learn(self, key: str, sent: tuple[str, Mapping[str, Any]]) -> None:
        """Do as the library did with a request for an object that was answered; `sent`: its URL and headers."""
        if self._lessons and self._ranges is None:
            manner = manner_of(key, *sent)
            if manner is None:
                self._lessons = 0
            else:
                self._ranges = S3Ranges(
                    manner,
                    lambda: self._wait(self._credentials()),
                    certificates=self._fs.session.get_config_variable("ca_bundle"),
                    connect_seconds=self._connect_seconds,
                    silence_seconds=self._read_seconds,
                )

    async def _credentials(self) -> Any:
        if self._fs.key and self._fs.secret:
            return ReadOnlyCredentials(self._fs.key, self._fs.secret, self._fs.token)
        found = await self._fs.session.get_credentials()
        return await found.get_frozen_credentials() if found is not None else None

    def _wait(
        self,
        request: Any,
        stops: CancelTokens = (),
        *,
        touched: Callable[[], float] | None = None,
        silence: float | None = None,
        limit: float = math.inf,
    ) -> Any:
        """The answer to a request, unless the server is silent for `silence` seconds (None for `silence_seconds`), or
        takes more than `limit` seconds. `touched`: when bytes last went to or fro, if that can be told (monotonic).
        """
        silence = self.silence_seconds if silence is None else silence
        future = asyncio.run_coroutine_threadsafe(request, self._loop)
        begun = time.monotonic()
        try:
            while True:
                done, _ = concurrent.futures.wait([future], _POLL_SECONDS)
                if done:
                    return future.result()
                refuse_if_stopped(stops)
                # The library watches over its connecting and over each step of an answer, but not over what it sends,
                # nor over an answer that trickles in.
                now = time.monotonic()
                if now - max(begun, touched() if touched is not None else begun) > silence:
                    raise TimeoutError(f"the server was silent for {silence:g} s")
                if now - begun > limit:
                    raise TimeoutError(f"the server takes more than {limit:.0f} s")
        finally:
            future.cancel()


def etag_of(answer: dict[str, Any]) -> str:
    """The ETag in an answer, without the quotes that some servers put around it here and not there; empty for none."""
    return str(answer.get("ETag") or "").strip('"')


def _note_request(request: Any, **_: object) -> None:
    """Called by the library before it sends a request for an object."""
    with suppress(LookupError):
        _noted.get().append((request.url, request.headers))


def _time_of(value: Any) -> datetime:
    """A time as servers write it. The library's way takes longer for those of a listing than the server for all."""
    if isinstance(value, str) and value.endswith("Z"):
        with suppress(ValueError):
            return datetime.fromisoformat(f"{value[:-1]}+00:00")
    return cast("datetime", parse_timestamp(value))


def _of_no_request(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong in the client's thread outside of our requests. When a connection breaks, aiohttp loses an
    exception of the task that was writing; the request has failed by another one then, and been told of."""
    error = context.get("exception")
    names = {kind.__name__ for kind in type(error).__mro__}
    if error is None or isinstance(error, (OSError, asyncio.CancelledError)) or "ClientError" in names:
        log.debug("%s: %r", context.get("message"), error)
    else:
        loop.default_exception_handler(context)
