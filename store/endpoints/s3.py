"""S3, and servers that speak it: objects written in parts of a size that fits, and read in ranges, some at a time.

By s3fs, whose own ways of writing are not taken: they commit what an exception has cut short, and hold parts in memory
(its issues 154 and 137). A part's body is read from the archive as it is sent, and once more when it must be sent
again. Over plain HTTP it is read once before, too, since the signature is over its SHA-256.

Threading: as `Endpoint`. Requests run in fsspec's own thread; those of one object at once are bounded.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from typing import Any

from store.archive.members import Member
from store.archive.pieces import Piece
from store.endpoints.base import CHUNK, Body, Known, Progress, write_files
from store.endpoints.trouble import CONNECT_SECONDS, SILENCE_SECONDS, Stops, refuse_if_stopped, retry, told
from store.endpoints.unfinished import Unfinished
from store.errors import RemoteError, RemoteNotFoundError, SourceChangedError, StoreError
from store.location import Location

log = logging.getLogger(__name__)

MAX_OBJECT = 5 << 40  # bytes
MAX_PARTS = 10_000
_LEAST_PART = 16 << 20  # bytes
_PART_GRAIN = 1 << 20  # parts are a multiple of it
_AT_ONCE = 4  # parts on their way
_RANGE = 4 << 20  # bytes fetched by one request
_RANGES_AHEAD = 3
_POLL_SECONDS = 0.2
_ABORTS = 5
_MD5 = re.compile(r"[0-9a-f]{32}")
_WRITE_OPTIONS = {"acl": "ACL", "cache-control": "CacheControl", "storage-class": "StorageClass"}
_NUMBERS = ("connect_timeout", "read_timeout")


def part_size(length: int) -> int:
    """Bytes of each part but the last, for an object of `length` bytes."""
    least = -(-length // MAX_PARTS)
    return max(_LEAST_PART, -(-least // _PART_GRAIN) * _PART_GRAIN)


class S3Endpoint:
    """One bucket."""

    can_seek = True

    def __init__(self, location: Location, stops: Stops = ()) -> None:
        import s3fs  # here, since it takes a second to load

        self._location = location
        self.stops = tuple(stops)
        self._bucket = location.host
        params = dict(location.params)
        self.write_options: dict[str, Any] = {
            name: params.pop(key) for key, name in _WRITE_OPTIONS.items() if key in params
        }
        config: dict[str, Any] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENCE_SECONDS,
            "retries": {"total_max_attempts": 1},  # `retry` is the one place where anything is tried again
        }
        # What botocore adds to every request since 1.36 breaks servers that are older than that. What arrives is
        # compared by its MD5 here.
        for option in ("request_checksum_calculation", "response_checksum_validation"):
            if f"AWS_{option.upper()}" not in os.environ:
                config[option] = "when_required"
        config |= {name: float(params.pop(name)) for name in _NUMBERS if name in params}
        self._silence_seconds: float = config["connect_timeout"] + config["read_timeout"]
        options: dict[str, Any] = dict(params)
        region = options.pop("region", options.pop("region_name", None))
        if "anon" in options:
            options["anon"] = options["anon"].lower() in ("1", "true", "yes")
        self._fs = s3fs.S3FileSystem(
            key=location.user,
            secret=location.password,
            client_kwargs={"region_name": region} if region else {},
            config_kwargs=config,
            use_listings_cache=False,
            skip_instance_cache=True,
            **options,
        )
        self._fs.retries = 1
        self._fs.loop.call_soon_threadsafe(self._fs.loop.set_exception_handler, _log_quietly)

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """As `Target.write`; in parts if it is large."""
        if content.length > MAX_OBJECT:
            raise RemoteError(f"{self.at(path).shown}: S3 takes no object of more than {MAX_OBJECT:,} bytes")
        self._end_unfinished()
        size = part_size(content.length)
        if content.length <= size:
            etag = self._write_whole(path, content)
            progress(content.length)
        else:
            etag = _Multipart(self, path, content, size, progress).run()
        self._check(path, content, etag)

    @cached_property
    def unfinished(self) -> Unfinished:
        """The multipart uploads to this bucket."""
        with told(self._location):
            return Unfinished(f"{self._fs.connect().meta.endpoint_url}/{self._bucket}")

    def look(self, path: str) -> Known:
        """As `Source.look`."""
        found = self.call(path, "head_object", Key=path)
        return Known(found["ContentLength"], found.get("ETag"))

    def chunks(self, path: str, known: Known) -> Iterator[bytes]:
        """As `Source.chunks`: some ranges ahead of the reader."""
        length = known.size or 0
        with ThreadPoolExecutor(_RANGES_AHEAD, thread_name_prefix="s3-read") as pool:
            ahead: deque[concurrent.futures.Future[bytes]] = deque()
            try:
                for start in range(0, length, _RANGE):
                    ahead.append(pool.submit(self.read_at, path, known, start, min(_RANGE, length - start)))
                    if len(ahead) > _RANGES_AHEAD:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def read_at(self, path: str, known: Known, offset: int, size: int) -> bytes:
        """As `Source.read_at`; any number of threads at once."""
        location = self.at(path)

        def fetch() -> bytes:
            try:
                content: bytes = self._wait(self._fetch(path, known.stamp, offset, size), None, self.stops)
            except OSError as error:
                if code_of(error) in ("PreconditionFailed", "412"):
                    raise SourceChangedError(f"{location.shown} was replaced while it was read: start again") from error
                raise
            if len(content) != size:
                raise ConnectionError(f"{len(content)} bytes came where {size} were asked for")
            return content

        return retry(fetch, location, self.stops)

    def read_small(self, path: str, limit: int) -> bytes | None:
        """As `Source.read_small`."""
        try:
            known = self.look(path)
        except RemoteNotFoundError:
            return None
        if known.size is None or known.size > limit:
            return None
        return self.read_at(path, known, 0, known.size) if known.size else b""

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """As `Source.find`. An empty object whose key ends in a slash stands for a folder."""
        prefix = f"{path.rstrip('/')}/" if path.strip("/") else ""
        more: dict[str, Any] = {}
        while True:
            page = self.call(path, "list_objects_v2", Prefix=prefix, **more)
            for item in page.get("Contents", []):
                name = item["Key"][len(prefix) :]
                if name.endswith("/"):
                    yield name.rstrip("/"), None
                elif name:
                    yield name, Known(item["Size"], item.get("ETag"))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """As `Target.write_folder`."""
        write_files(self, self.at(path), members, progress)

    def make_folder(self, path: str) -> None:
        """Nothing: S3 has no folders."""

    def remove(self, path: str) -> None:
        """Remove an object if it is there."""
        self.call(path, "delete_object", None, (), Key=path)

    def close(self) -> None:
        """As `Source.close`."""
        session = getattr(self._fs, "_s3", None)
        if session is not None:
            with suppress(Exception):  # what counted has been told; only sockets are left
                asyncio.run_coroutine_threadsafe(session.close(), self._fs.loop).result(5)

    def call(
        self, path: str, method: str, body: Body | None = None, stops: Stops | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """One request, tried again as makes sense. `stops`: instead of those of the endpoint."""
        heeded = self.stops if stops is None else stops

        def action() -> dict[str, Any]:
            extra = {}
            if body is not None:
                body.seek(0)
                extra["Body"] = body
            try:
                answer: dict[str, Any] = self._wait(
                    self._fs._call_s3(method, Bucket=self._bucket, **arguments, **extra), body, heeded
                )
            except Exception as error:
                if body is not None and body.error is not None:
                    raise body.error from error
                raise
            return answer

        return retry(action, self.at(path), heeded)

    def abort(self, path: str, upload: str) -> None:
        """End a multipart upload, so that nothing of it is kept.

        Raises:
            StoreError: it could not be; it stays noted as unfinished.
        """
        for _ in range(_ABORTS):
            with suppress(RemoteNotFoundError):
                self.call(path, "abort_multipart_upload", None, (), Key=path, UploadId=upload)
            # A part that was on its way may come after it.
            try:
                self.call(path, "list_parts", None, (), Key=path, UploadId=upload)
            except RemoteNotFoundError:
                return
        raise RemoteError(f"{self.at(path).shown}: an unfinished multipart upload of it could not be ended")

    def _write_whole(self, path: str, content: Piece) -> str | None:
        body = Body(content)
        answer = self.call(path, "put_object", body, Key=path, ContentLength=content.length, **self.write_options)
        if is_md5(answer) and etag_of(answer) != body.md5():
            self.remove(path)
            raise RemoteError(f"{self.at(path).shown}: what the server received is not what was sent")
        return etag_of(answer)

    def _check(self, path: str, content: Piece, etag: str | None) -> None:
        """Compare what the server says of an object with what was sent."""
        known = self.look(path)
        stamp = known.stamp.strip('"') if known.stamp else None
        is_right = known.size == content.length and (not etag or not stamp or etag == stamp)
        if known.size == content.length and not is_right and stamp and _MD5.fullmatch(stamp):
            # rclone tells the MD5 of the whole of what came in parts.
            body = Body(content)
            while body.read(CHUNK):
                pass
            is_right = stamp == body.md5()
        if not is_right:
            raise RemoteError(
                f"{self.at(path).shown} is not what was sent: {known.size} bytes instead of {content.length}, or "
                "another checksum; someone else may have written it at the same time"
            )

    def _end_unfinished(self) -> None:
        """End the uploads that processes which are gone have left in this bucket."""
        for path, upload, forget in self.unfinished.left_behind():
            try:
                self.abort(path, upload)
            except StoreError as error:
                log.warning("%s", error)
            else:
                forget()

    async def _fetch(self, path: str, stamp: str | None, offset: int, size: int) -> bytes:
        condition = {"IfMatch": stamp} if stamp else {}
        answer = await self._fs._call_s3(
            "get_object", Bucket=self._bucket, Key=path, Range=f"bytes={offset}-{offset + size - 1}", **condition
        )
        async with answer["Body"] as stream:
            content: bytes = await stream.read()
        return content

    def _wait(self, request: Any, body: Body | None, stops: Stops) -> Any:
        """The answer to a request, unless the server is silent for too long."""
        future = asyncio.run_coroutine_threadsafe(request, self._fs.loop)
        begun = time.monotonic()
        try:
            while True:
                done, _ = concurrent.futures.wait([future], _POLL_SECONDS)
                if done:
                    return future.result()
                last = max(begun, body.touched) if body is not None else begun
                refuse_if_stopped(stops)
                # The library watches over its connecting and over answers, but not over what it sends.
                if time.monotonic() - last > self._silence_seconds:
                    raise TimeoutError(f"the server was silent for {self._silence_seconds:g} s")
        finally:
            future.cancel()

    def at(self, path: str) -> Location:
        """Where an object lies, for a sentence."""
        return self._location.at(path)


class _Multipart:
    """One object that is written in parts."""

    def __init__(self, endpoint: S3Endpoint, path: str, content: Piece, size: int, progress: Progress) -> None:
        self._endpoint = endpoint
        self._path = path
        self._content = content
        self._size = size
        self._progress = progress
        self._stop = threading.Event()
        self._stops = (*endpoint.stops, self._stop)

    def run(self) -> str | None:
        """Send all; the object's ETag, as far as it can be told what it must be."""
        options = self._endpoint.write_options
        upload = self._call("create_multipart_upload", **options)["UploadId"]
        # Whatever happens to this process, the next one ends what it began.
        with self._endpoint.unfinished.noted(self._path, upload) as done:
            try:
                parts = self._send(upload)
                etag = self._complete(upload, parts)
            except BaseException:
                self._give_up(upload, done)
                raise
            done()
        return etag

    def _give_up(self, upload: str, done: Callable[[], None]) -> None:
        try:
            self._endpoint.abort(self._path, upload)
        except StoreError as error:
            log.warning(
                "%s; until the next export to this bucket has ended it, the server keeps what it has of it", error
            )
        else:
            done()

    def _send(self, upload: str) -> list[dict[str, Any]]:
        starts = range(0, self._content.length, self._size)
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="s3-write")
        try:
            sent = [pool.submit(self._send_part, upload, number, start) for number, start in enumerate(starts, 1)]
            concurrent.futures.wait(sent, return_when=concurrent.futures.FIRST_EXCEPTION)
            for future in sent:
                if future.done():
                    future.result()
            return [future.result() for future in sent]
        finally:
            self._stop.set()  # those that still run have no purpose any more
            pool.shutdown(wait=True, cancel_futures=True)

    def _send_part(self, upload: str, number: int, start: int) -> dict[str, Any]:
        length = min(self._size, self._content.length - start)
        body = Body(self._content, start, length)
        answer = self._call("upload_part", body, UploadId=upload, PartNumber=number, ContentLength=length)
        if is_md5(answer) and etag_of(answer) != body.md5():
            shown = self._endpoint.at(self._path).shown
            raise RemoteError(f"{shown}: what the server received is not what was sent, in part {number}")
        self._progress(length)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> str | None:
        self._stop.clear()
        sums = [part["ETag"].strip('"') for part in parts]
        expected = None
        if all(_MD5.fullmatch(text) for text in sums):
            whole = hashlib.md5(b"".join(map(bytes.fromhex, sums)), usedforsecurity=False)
            expected = f"{whole.hexdigest()}-{len(sums)}"
        try:
            answer = self._call("complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts})
        except RemoteNotFoundError:
            # An earlier try may have come through, and only its answer was lost.
            known = self._endpoint.look(self._path)
            if expected is None or known.stamp is None or known.stamp.strip('"') != expected:
                raise
            return expected
        etag = etag_of(answer)
        return expected if etag and etag.endswith(f"-{len(sums)}") else etag

    def _call(self, method: str, body: Body | None = None, **arguments: Any) -> dict[str, Any]:
        return self._endpoint.call(self._path, method, body, self._stops, Key=self._path, **arguments)


def _log_quietly(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """aiohttp leaves tasks behind whose connection broke. Whoever made the request has been told of that."""
    error = context.get("exception")
    if isinstance(error, (OSError, asyncio.CancelledError)) or "ClientError" in {
        kind.__name__ for kind in type(error).__mro__
    }:
        log.debug("a connection to a server: %s", error)
    else:
        loop.default_exception_handler(context)


def etag_of(answer: dict[str, Any]) -> str | None:
    """The ETag in an answer, without its quotes."""
    etag = answer.get("ETag")
    return etag.strip('"') if isinstance(etag, str) else None


def is_md5(answer: dict[str, Any]) -> bool:
    """Whether the ETag in an answer is the MD5 of what was sent: it is not where the server encrypts by other keys."""
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
    return not encrypted and _MD5.fullmatch(etag_of(answer) or "") is not None


def code_of(error: BaseException) -> str | None:
    """The code by which a server names an error."""
    response = getattr(error.__cause__ or error, "response", None)
    return str(response["Error"].get("Code")) if isinstance(response, dict) and "Error" in response else None
