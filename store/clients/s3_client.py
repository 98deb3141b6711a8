"""S3Client: requests to one bucket in S3, or in a server with the same protocol. Each request is tried once.

Endpoint, region and credentials come from the usual places of AWS tools, or from a location: the user and password of
its URL, and the parameters of s3fs (`key`, `secret`, `endpoint_url`, `region`, `profile`, `anon`, ...).

s3fs creates the client (`store.clients.s3_library`). Requests use S3's own operations: fsspec has no conditions and no
paged listings, and a write by s3fs commits a file that an exception has cut short (its issue 154). Ranges are read,
listings are made and objects are written without s3fs, once its first request has shown the way
(`store.clients.s3_shortcut`), or from the start if the user has named the server (`store.clients.s3_environment`).

Threading: any thread. Requests run in the library's own thread or in the calling thread. Create it only after a fork.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from bentofs.store.clients.objects import Listing, ObjectInfo
from bentofs.store.clients.request_body import Body
from bentofs.store.clients.s3_environment import environment_of
from bentofs.store.clients.s3_operations import operation_named
from bentofs.store.clients.s3_pages import fetch_page, mtime_ns_of
from bentofs.store.clients.s3_plain import (
    Manner,
    PlainRequests,
    manner_of_listing,
    manner_of_object,
    manner_of_upload,
)
from bentofs.store.clients.s3_ranges import fetch_range
from bentofs.store.clients.s3_send import AnswerLostError
from bentofs.store.clients.s3_shortcut import LESSONS, Shortcut
from bentofs.store.location import Location
from bentofs.store.util.cancel import CancelTokens

if TYPE_CHECKING:
    from s3fs import S3FileSystem

    from bentofs.store.clients.s3_library import S3Library

_CONNECTIONS = 64
_CHUNK = 256 << 10  # bytes
_LEAST_RATE = 16 << 10  # bytes a second; a slower server counts as hung
_SENDING_SECONDS = 30.0  # least silence allowed while a body is sent: the system buffers some megabytes
_WRITE_OPTIONS = {"acl": "ACL", "cache-control": "CacheControl", "storage-class": "StorageClass"}
_TIMEOUTS = ("connect_timeout", "read_timeout")


class S3Client:
    """The requests to one bucket."""

    def __init__(self, location: Location, *, connect_seconds: float, silence_seconds: float) -> None:
        """`connect_seconds`: timeout for connecting; `silence_seconds`: a server that takes and sends no byte for so
        long counts as hung. The location's parameters `connect_timeout` and `read_timeout` override them.

        Raises:
            TypeError: s3fs or botocore does not know a parameter.
            BadLocationError: there are no certificates in the file that the environment names.
        """
        self.bucket = location.host
        params = dict(location.params)
        self.write_options = {name: params.pop(key) for key, name in _WRITE_OPTIONS.items() if key in params}
        config: dict[str, Any] = {
            "connect_timeout": connect_seconds,
            "read_timeout": silence_seconds,
            "retries": {"total_max_attempts": 1},  # the caller retries
            "max_pool_connections": _CONNECTIONS,
            "user_agent": "bentofs",  # botocore would build its own for each request
        }
        # The checksums that botocore adds to every request since 1.36 break older servers. Uploads are compared by
        # MD5 here.
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
        self._arguments = {**login, **params, "client_kwargs": client, "config_kwargs": config}
        self._lock = threading.Lock()  # guards the library
        self._library: S3Library | None = None
        lessons = 0 if any(own.values()) else LESSONS
        self._environment = named = environment_of(location)
        objects, listings = (named.objects, named.listings) if named is not None else (None, None)
        self._reads = Shortcut("GetObject", lessons, self._plain_requests, objects)
        self._lists = Shortcut("ListObjectsV2", lessons, self._plain_requests, listings)
        self._writes = Shortcut("CreateMultipartUpload", lessons, self._plain_requests, objects)
        if named is None:
            self._loaded()  # it refuses unknown parameters

    @property
    def _fs(self) -> S3FileSystem:
        return self._loaded().fs

    def _loaded(self) -> S3Library:
        with self._lock:
            if self._library is None:
                from bentofs.store.clients.s3_library import S3Library

                self._library = S3Library(self._arguments)
            return self._library

    def endpoint(self, stops: CancelTokens = ()) -> str:
        """Return the URL of the server. Raises what `S3Library.build_client` raises."""
        if self._environment is not None:
            return self._environment.endpoint
        return str(self._loaded().build_client(stops).meta.endpoint_url)

    def ask(
        self, method: str, *, body: Body | None = None, stops: CancelTokens = (), **arguments: Any
    ) -> dict[str, Any]:
        """Send one request, for one of S3's operations.

        Raises:
            Exception: raised by the libraries (`store.clients.error_classes`); a TimeoutError after silence.
            StoreError: the reading of `body` failed.
            CancelledError: one of `stops` is set.
        """
        requests = self._writes.requests
        if requests is not None:
            given = {name: value for name, value in arguments.items() if name not in ("Key", "Body")}
            operation = operation_named(method, arguments.get("Body", body), given)
            if operation is None:
                requests = None
            else:
                found = None
                try:
                    found = operation.send(requests, arguments["Key"], stops)
                except AnswerLostError:  # the library reads while it sends
                    requests = None
                if found is not None:
                    return found
        answer = self._ask(method, body, stops, arguments)
        self._writes.drop(requests)
        return answer

    def _ask(self, method: str, body: Body | None, stops: CancelTokens, arguments: dict[str, Any]) -> dict[str, Any]:
        """Do what `ask` does, by the library."""
        extra: dict[str, Any] = {}
        if body is not None:
            body.seek(0)
            extra["Body"] = body

        client = self._loaded().build_client(stops)

        async def ask() -> dict[str, Any]:
            noted = self._writes.listen(client) if method == "create_multipart_upload" else []
            answer = await self._fs._call_s3(method, Bucket=self.bucket, **arguments, **extra)
            if noted:
                self._writes.learn(manner_of_upload(arguments["Key"], *noted[-1]))
            return cast("dict[str, Any]", answer)

        try:
            touched = None if body is None else lambda: body.touched
            silence = None if body is None else self._sending_seconds
            return cast("dict[str, Any]", self._wait(ask(), stops, touched=touched, silence=silence))
        except Exception as error:
            if body is not None and body.error is not None:
                raise body.error from error
            raise

    def fetch(
        self,
        key: str,
        start: int,
        end: int,
        *,
        etag: str = "",
        into: bytearray | None = None,
        stops: CancelTokens = (),
    ) -> tuple[bytes | bytearray, dict[str, Any]]:
        """Return the bytes [start, end) of an object, maybe fewer, and its attributes: `ETag` and `LastModified`.
        Raises what `ask` raises.

        `etag`: the object must have it; not every server heeds that. `into`: a buffer of that size, which may be filled
        and returned.
        """
        limit = self.silence_seconds + (end - start) / _LEAST_RATE
        requests = None if stops else self._reads.requests  # such a request cannot be cancelled
        if requests is not None:
            found = fetch_range(requests, key, start, end, etag=etag, into=into, seconds=limit)
            if found is not None:
                return found
        answer = self._fetch(key, start, end, etag, stops, limit)
        self._reads.drop(requests)
        return answer

    def _fetch(
        self, key: str, start: int, end: int, etag: str, stops: CancelTokens, limit: float
    ) -> tuple[bytes, dict[str, Any]]:
        """Do what `fetch` does, by the library."""
        condition = {"IfMatch": f'"{etag}"'} if etag else {}
        chunks: list[bytes] = []
        received = 0
        touched = time.monotonic()

        async def get() -> dict[str, Any]:
            nonlocal received, touched
            noted = self._reads.listen(await self._fs.set_session())
            answer = await self._fs._call_s3(
                "get_object", Bucket=self.bucket, Key=key, Range=f"bytes={start}-{end - 1}", **condition
            )
            if noted:
                self._reads.learn(manner_of_object(key, *noted[-1]))
            async with answer["Body"] as stream:
                while chunk := await stream.read(_CHUNK):
                    chunks.append(chunk)
                    received += len(chunk)
                    touched = time.monotonic()
                    if received > end - start:
                        raise ConnectionError(f"the server sends more than the {end - start} bytes it was asked for")
            return cast("dict[str, Any]", answer)

        answer = self._wait(get(), stops, touched=lambda: touched, limit=limit)
        return b"".join(chunks), answer  # joined here: all requests wait for the receiving thread

    def page(self, prefix: str, more: str = "", *, delimiter: str = "", stops: CancelTokens = ()) -> Listing:
        """Return one page of the listing of keys that begin with `prefix`. Raises what `ask` raises.

        `more`: the token of this page; `delimiter`: keys that contain it are grouped into common prefixes.
        """
        requests = None if stops else self._lists.requests
        if requests is not None:
            found = fetch_page(requests, prefix, more, delimiter=delimiter, seconds=self.silence_seconds)
            if found is not None:
                return found
        page = self._page(prefix, more, delimiter, stops)
        self._lists.drop(requests)
        return page

    def _page(self, prefix: str, more: str, delimiter: str, stops: CancelTokens) -> Listing:
        """Do what `page` does, by the library."""
        asked: dict[str, Any] = {"ContinuationToken": more} if more else {}
        if delimiter:
            asked["Delimiter"] = delimiter

        async def ask() -> dict[str, Any]:
            noted = self._lists.listen(await self._fs.set_session())
            answer = await self._fs._call_s3("list_objects_v2", Bucket=self.bucket, Prefix=prefix, **asked)
            if noted:
                self._lists.learn(manner_of_listing(*noted[-1]))
            return cast("dict[str, Any]", answer)

        answer = self._wait(ask(), stops)
        objects = [
            ObjectInfo(item["Key"], item["Size"], etag_of(item), mtime_ns_of(item.get("LastModified")))
            for item in answer.get("Contents", ())
        ]
        folders = [item["Prefix"] for item in answer.get("CommonPrefixes", ())]
        return Listing(objects, folders, str(answer.get("NextContinuationToken") or ""))

    def close(self) -> None:
        """Close the connections."""
        for shortcut in (self._reads, self._lists, self._writes):
            shortcut.close()
        with self._lock:
            library, self._library = self._library, None
        if library is not None:
            library.close()

    def _plain_requests(self, manner: Manner) -> PlainRequests:
        environment = self._environment
        return PlainRequests(
            manner,
            (lambda stops: self._wait(self._loaded().credentials(), stops))
            if environment is None
            else lambda _stops: environment.credentials,
            certificates=self._loaded().certificates if environment is None else environment.certificates,
            connect_seconds=self._connect_seconds,
            silence_seconds=self._read_seconds,
            sending_seconds=self._sending_seconds,
        )

    def _wait(
        self,
        request: Any,
        stops: CancelTokens = (),
        *,
        touched: Callable[[], float] | None = None,
        silence: float | None = None,
        limit: float = math.inf,
    ) -> Any:
        """Do what `S3Library.wait` does. `silence`: None for `silence_seconds`."""
        silence = self.silence_seconds if silence is None else silence
        return self._loaded().wait(request, stops, touched=touched, silence=silence, limit=limit)


def etag_of(answer: dict[str, Any]) -> str:
    """Return the ETag in an answer, without quotes, which servers use inconsistently; empty for none."""
    return str(answer.get("ETag") or "").strip('"')
