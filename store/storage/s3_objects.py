"""Objects in S3, or in a server with the same protocol.

Threading: any thread. Create it only after a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from bentofs.store.clients.error_classes import code_of
from bentofs.store.clients.request_body import Body, Content
from bentofs.store.clients.s3_client import S3Client, etag_of
from bentofs.store.clients.s3_multipart import S3Uploads
from bentofs.store.errors import RemoteNotFoundError
from bentofs.store.location import Location
from bentofs.store.storage.objects import (
    ChangedObjectError,
    Listing,
    MissingBucketError,
    MissingObjectError,
    ObjectInfo,
    RefusedError,
    Retry,
    TransientError,
    translated,
)
from bentofs.store.util.cancel import CancelTokens

_CONNECT_SECONDS = 5.0
_DELETED_AT_ONCE = 1000  # limit of S3 for one request

_T = TypeVar("_T")


class S3Objects:
    """The objects below one prefix of one bucket."""

    splits = True

    def __init__(self, location: Location, attempt_seconds: float) -> None:
        """`attempt_seconds`: the time limit of one attempt."""
        self.location = location.url.rstrip("/")
        self._where = location
        self.prefix = f"{location.path.rstrip('/')}/" if location.path.strip("/") else ""
        self._client = S3Client(
            location, connect_seconds=min(_CONNECT_SECONDS, attempt_seconds), silence_seconds=attempt_seconds
        )

    def list_objects(self, prefix: str, *, more: str = "") -> Listing:
        return self._page(prefix, more, "")

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:
        return self._page(prefix, more, "/")

    def read(self, wanted: ObjectInfo, start: int, end: int) -> bytes | bytearray:
        content, answer = self._once(lambda: self._client.fetch(self.prefix + wanted.key, start, end, etag=wanted.etag))
        found = self._info(wanted.key, answer, wanted.size)
        # Not every server heeds the condition, and some have no ETags. If there is an ETag, times add nothing.
        if found.etag != wanted.etag or not (wanted.etag or self._is_as_old(found, wanted)):
            raise ChangedObjectError
        if len(content) != end - start:
            raise TransientError(f"the answer ended after {len(content)} of {end - start} bytes")
        return content

    def find(self, key: str) -> tuple[ObjectInfo, float]:
        answer = self._ask("head_object", key)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer["LastModified"]).total_seconds()
        return self._info(key, answer, answer["ContentLength"]), age

    def put(self, key: str, content: bytes, *, only_new: bool = False, only_if: str = "") -> str:
        condition = {"IfNoneMatch": "*"} if only_new else {}
        if only_if:
            condition["IfMatch"] = f'"{only_if}"'
        return etag_of(self._ask("put_object", key, Body=content, **condition))

    def put_file(
        self, key: str, content: Content, retry: Retry, *, only_new: bool = False, stops: CancelTokens = ()
    ) -> str:
        def ask(
            method: str, key: str, *, body: Body | None = None, stops: CancelTokens = (), **arguments: Any
        ) -> dict[str, Any]:
            try:
                return retry(
                    lambda: self._once(lambda: self._client.ask(method, body=body, stops=stops, Key=key, **arguments))
                )
            except MissingObjectError:
                raise RemoteNotFoundError(f"{self._where.at(key).shown} is not there") from None

        uploads = S3Uploads(self._client, ask, self._where.at("").url.rstrip("/"))
        return uploads.write(self.prefix + key, content, only_new=only_new, stops=stops)

    def end_uploads(self, prefix: str) -> None:
        def ask(method: str, **arguments: Any) -> dict[str, Any]:
            return self._once(lambda: self._client.ask(method, **arguments))

        for upload in ask("list_multipart_uploads", Prefix=self.prefix + prefix).get("Uploads", ()):
            with suppress(MissingObjectError):
                ask("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])

    def delete(self, keys: list[str]) -> None:
        for begin in range(0, len(keys), _DELETED_AT_ONCE):
            named = [{"Key": self.prefix + key} for key in keys[begin : begin + _DELETED_AT_ONCE]]
            asked = {"Objects": named, "Quiet": True}
            answer = self._once(lambda asked=asked: self._client.ask("delete_objects", Delete=asked))  # type: ignore[misc]
            for error in answer.get("Errors", ()):
                if error.get("Code") != "NoSuchKey":
                    raise RefusedError(f"{error.get('Key')} could not be removed: {error.get('Message')}")

    def _is_as_old(self, found: ObjectInfo, listed: ObjectInfo) -> bool:
        """True if an object without an ETag is unchanged since the listing. `found`: its attributes from an answer.

        The two may give different times for one object. rclone's `serve s3` lists the modification time of a file,
        maybe copied from its original, but answers a GET with the start of the upload. If the times differ, the object
        is listed again.
        """
        return found.mtime_ns // 10**9 == listed.mtime_ns // 10**9 or listed in self._page(listed.key, "", "/").objects

    def _page(self, prefix: str, more: str, delimiter: str) -> Listing:
        page, further = self._once(lambda: self._client.page(self.prefix + prefix, more, delimiter=delimiter))
        begin = len(self.prefix)
        objects = [self._info(item["Key"][begin:], item, item["Size"]) for item in page.get("Contents", ())]
        folders = [item["Prefix"][begin:].rstrip("/") for item in page.get("CommonPrefixes", ())]
        return Listing(objects, folders, further)

    def _info(self, key: str, answer: dict[str, Any], size: int) -> ObjectInfo:
        modified = answer.get("LastModified")
        mtime_ns = int(modified.timestamp() * 1000) * 1_000_000 if isinstance(modified, datetime) else 0
        return ObjectInfo(key, size, etag_of(answer), mtime_ns)

    def _ask(self, method: str, key: str, **arguments: Any) -> dict[str, Any]:
        return self._once(lambda: self._client.ask(method, Key=self.prefix + key, **arguments))

    def _once(self, request: Callable[[], _T]) -> _T:
        try:
            return request()
        except Exception as error:
            if code_of(error) == "NoSuchBucket":
                raise MissingBucketError(f"there is no bucket {self._client.bucket}") from error
            raise translated(error, self._where.secrets) from error
