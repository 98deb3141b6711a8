"""Objects in S3, or in what speaks its protocol. Endpoint, region and credentials come from where all of AWS's tools
take them, or from storage options as s3fs knows them (`key`, `secret`, `endpoint_url`, `profile`, `anon`, ...).

s3fs makes the client and keeps the thread in which its requests run; what is asked of it are S3's own operations, since
conditions, and listings a page at a time, are in no file system's interface. Bodies stay below `_PART` bytes.

Threading: any thread. Must not be made before a fork.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast

from fsspec.asyn import sync
from s3fs import S3FileSystem

from store.storage.objects import (
    ChangedObjectError,
    DeniedError,
    Listing,
    MissingObjectError,
    ObjectInfo,
    RefusedError,
    TransientError,
)

log = logging.getLogger(__name__)

_CONNECTIONS = 64
_CONNECT_SECONDS = 5.0
_PART = 16 << 20  # bytes of a part of a large object; more where there would be more than _PARTS of them
_PARTS = 10_000  # that S3 allows
_PARTS_AT_ONCE = 4
_PART_ATTEMPTS = 4
_DELETED_AT_ONCE = 1000  # that S3 allows
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401")
_BUSY = ("SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "InternalError", "ServiceUnavailable", "Throttling")
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound")
_UNFIT = ("InvalidRange", "PreconditionFailed", "ConditionalRequestConflict")

_T = TypeVar("_T")


class S3Objects:
    """The objects below one prefix of one bucket."""

    splits = True

    def __init__(self, location: str, path: str, options: dict[str, Any], attempt_seconds: float) -> None:
        """`path`: bucket and prefix, separated by a slash; `location`: to show."""
        self.location = location
        self._bucket, _, prefix = path.strip("/").partition("/")
        self.prefix = f"{prefix}/" if prefix else ""
        self._attempt_seconds = attempt_seconds
        given = dict(options.pop("config_kwargs", None) or {})
        config = {
            "connect_timeout": min(_CONNECT_SECONDS, attempt_seconds),
            "read_timeout": attempt_seconds,
            "retries": {"max_attempts": 0},  # see store.storage.patience
            "max_pool_connections": _CONNECTIONS,
            # Since botocore 1.36 these are on by default, and some servers do not know them.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            **given,
        }
        self._fs = S3FileSystem(config_kwargs=config, skip_instance_cache=True, use_listings_cache=False, **options)
        self._fs.retries = 1
        self._fs.loop.call_soon_threadsafe(self._fs.loop.set_exception_handler, _of_no_request)

    def list_objects(self, prefix: str, *, more: str = "") -> Listing:
        return self._page(prefix, more, {})

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:
        return self._page(prefix, more, {"Delimiter": "/"})

    def read(self, wanted: ObjectInfo, start: int, end: int) -> bytes:
        async def get() -> bytes:
            condition = {"IfMatch": f'"{wanted.etag}"'} if wanted.etag else {}
            span = f"bytes={start}-{end - 1}"
            answer = await self._ask("get_object", Key=self.prefix + wanted.key, Range=span, **condition)
            async with answer["Body"] as body:
                content = cast("bytes", await body.read())
            found = self._info(wanted.key, answer, wanted.size)
            # Not every server heeds the condition, and some know no ETags.
            if found.etag != wanted.etag or found.mtime_ns // 10**9 != wanted.mtime_ns // 10**9:
                raise ChangedObjectError
            if len(content) != end - start:
                raise TransientError(f"the answer ended after {len(content)} of {end - start} bytes")
            return content

        return self._run(get)

    def find(self, key: str) -> tuple[ObjectInfo, float]:
        async def head() -> tuple[ObjectInfo, float]:
            answer = await self._ask("head_object", Key=self.prefix + key)
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            age = (now - answer["LastModified"]).total_seconds()
            return self._info(key, answer, answer["ContentLength"]), age

        return self._run(head)

    def put(self, key: str, content: bytes, *, only_new: bool = False, only_if: str = "") -> str:
        async def put() -> str:
            condition = {"IfNoneMatch": "*"} if only_new else {}
            if only_if:
                condition["IfMatch"] = f'"{only_if}"'
            answer = await self._ask("put_object", Key=self.prefix + key, Body=content, **condition)
            return _etag(answer)

        return self._run(put)

    def put_file(self, key: str, descriptor: int, size: int, *, only_new: bool = False) -> str:
        if size <= _PART:
            return self.put(key, os.pread(descriptor, size, 0), only_new=only_new)
        condition = {"IfNoneMatch": "*"} if only_new else {}
        return self._run(lambda: self._put_parts(self.prefix + key, descriptor, size, condition), bounded=False)

    def delete(self, keys: list[str]) -> None:
        for begin in range(0, len(keys), _DELETED_AT_ONCE):
            named = [{"Key": self.prefix + key} for key in keys[begin : begin + _DELETED_AT_ONCE]]

            async def delete(named: list[dict[str, str]] = named) -> None:
                answer = await self._ask("delete_objects", Delete={"Objects": named, "Quiet": True})
                for error in answer.get("Errors", ()):
                    if error.get("Code") != "NoSuchKey":
                        raise RefusedError(f"{error.get('Key')} could not be removed: {error.get('Message')}")

            self._run(delete)

    async def _put_parts(self, key: str, descriptor: int, size: int, condition: dict[str, str]) -> str:
        length = max(_PART, -(-size // _PARTS))
        upload = (await self._ask("create_multipart_upload", Key=key))["UploadId"]
        slots = asyncio.Semaphore(_PARTS_AT_ONCE)

        async def put(number: int) -> dict[str, Any]:
            async with slots:
                content = os.pread(descriptor, length, (number - 1) * length)
                for attempt in range(1, _PART_ATTEMPTS + 1):
                    try:
                        answer = await self._attempt(
                            lambda: self._ask("upload_part", Key=key, UploadId=upload, PartNumber=number, Body=content)
                        )
                        return {"PartNumber": number, "ETag": answer["ETag"]}
                    except TransientError:
                        if attempt == _PART_ATTEMPTS:
                            raise
                        await asyncio.sleep(0.2 * 2**attempt)
                raise AssertionError("unreachable")

        tasks = [asyncio.ensure_future(put(number + 1)) for number in range(-(-size // length))]
        try:
            parts = await asyncio.gather(*tasks)
            answer = await self._ask(
                "complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
            )
            return _etag(answer)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(Exception):  # what led here says it all
                await self._ask("abort_multipart_upload", Key=key, UploadId=upload)
            raise

    def _page(self, prefix: str, more: str, asked: dict[str, str]) -> Listing:
        async def page() -> Listing:
            token = {"ContinuationToken": more} if more else {}
            answer = await self._ask("list_objects_v2", Prefix=self.prefix + prefix, **token, **asked)
            begin = len(self.prefix)
            objects = [self._info(item["Key"][begin:], item, item["Size"]) for item in answer.get("Contents", ())]
            folders = [item["Prefix"][begin:].rstrip("/") for item in answer.get("CommonPrefixes", ())]
            return Listing(objects, folders, answer.get("NextContinuationToken", ""))

        return self._run(page)

    def _info(self, key: str, answer: dict[str, Any], size: int) -> ObjectInfo:
        modified = answer.get("LastModified")
        mtime_ns = int(modified.timestamp() * 1000) * 1_000_000 if isinstance(modified, datetime) else 0
        return ObjectInfo(key, size, _etag(answer), mtime_ns)

    async def _ask(self, operation: str, **arguments: Any) -> Any:
        return await self._fs._call_s3(operation, Bucket=self._bucket, **arguments)

    def _run(self, work: Callable[[], Coroutine[Any, Any, _T]], *, bounded: bool = True) -> _T:
        # The client's own timeouts are for single steps; an answer that trickles in must end, too.
        limit = 2 * self._attempt_seconds if bounded else None
        return cast("_T", sync(self._fs.loop, lambda: self._attempt(work, limit)))

    async def _attempt(self, work: Callable[[], Coroutine[Any, Any, _T]], limit: float | None = None) -> _T:
        try:
            return await asyncio.wait_for(work(), limit)
        except (MissingObjectError, ChangedObjectError, DeniedError, TransientError, RefusedError):
            raise
        except Exception as error:
            raise _translated(error, self._bucket) from error


def _of_no_request(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong in the client's thread outside of our requests. When a connection breaks, aiohttp loses an
    exception of the task that was writing; the request has failed by another one then, and been told of."""
    error = context.get("exception")
    if isinstance(error, OSError):
        log.debug("%s: %r", context.get("message"), error)
    else:
        loop.default_exception_handler(context)


def _etag(answer: dict[str, Any]) -> str:
    """Some servers put quotes around it here and none there."""
    return str(answer.get("ETag") or "").strip('"')


def _translated(error: Exception, bucket: str) -> Exception:
    """What an exception of s3fs, botocore, aiohttp or the system means to us."""
    response = getattr(error.__cause__ or error, "response", None)
    if isinstance(response, dict):
        return _of_answer(response, bucket)
    name = type(error).__name__
    if name in _NO_CREDENTIALS:
        return DeniedError(f"{error}")
    if isinstance(error, (TypeError, ValueError, KeyError)):
        return RefusedError(f"{name}: {error}")
    if name in ("TimeoutError", "FSTimeoutError", "ReadTimeoutError", "ConnectTimeoutError"):
        return TransientError("it does not answer in time")
    return TransientError(f"{error}" or name)


def _of_answer(response: dict[str, Any], bucket: str) -> Exception:
    """What an answer that is an error means."""
    told = response.get("Error", {})
    code, text = str(told.get("Code", "")), str(told.get("Message", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return RefusedError(f"there is no bucket {bucket}")
    if status == 404 or code in ("NoSuchKey", "404", "NoSuchUpload"):
        return MissingObjectError()
    if status in (409, 412, 416) or code in _UNFIT:
        return ChangedObjectError()
    if status in (401, 403) or code in _DENIED:
        return DeniedError(f"{text} ({code})")
    if status >= 500 or status in (408, 429) or code in _BUSY:
        return TransientError(f"the server answers {status} {code}: {text}")
    return RefusedError(f"the server answers {status} {code}: {text}")
