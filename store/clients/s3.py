"""S3Objects: the driver for S3, and for servers with the same protocol. Stores and transfers use it.

Keys are relative to a prefix, which is empty for transfers. Every request is repeated by the driver's policy
(`store.clients.retry`). Large objects are written in parts (`store.clients.s3_multipart`).

Threading: any thread. Create it only after a fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from bentofs.store.clients.error_classes import translating
from bentofs.store.clients.objects import Listing, ObjectInfo
from bentofs.store.clients.request_body import Body, Content
from bentofs.store.clients.retry import Retries, RetryPolicy
from bentofs.store.clients.s3_client import S3Client, etag_of
from bentofs.store.clients.s3_multipart import S3Uploads
from bentofs.store.clients.s3_pages import mtime_ns_of
from bentofs.store.errors import ConditionFailedError, RemoteError, RemoteNotFoundError
from bentofs.store.formats.gap import Block
from bentofs.store.location import Location
from bentofs.store.util.cancel import CancelTokens

_DELETED_AT_ONCE = 1000  # limit of S3 for one request

_T = TypeVar("_T")


class S3Objects:
    """The objects below one prefix of one bucket."""

    splits = True
    has_etags = True

    def __init__(self, location: Location, policy: RetryPolicy) -> None:
        """Raises what `S3Client` raises."""
        self.location = location.url.rstrip("/")
        self._where = location
        self.prefix = f"{location.path.rstrip('/')}/" if location.path.strip("/") else ""
        self._client = S3Client(
            location, connect_seconds=policy.connect_seconds, silence_seconds=policy.silence_seconds
        )
        self._retries = Retries(policy)
        self._uploads = S3Uploads(self._client, self._ask, location.at("").url.rstrip("/"))

    def list_objects(self, prefix: str, *, more: str = "", stops: CancelTokens = ()) -> Listing:
        return self._retried(prefix, lambda: self._page(prefix, more, "", stops), stops)

    def list_folder(self, prefix: str, *, more: str = "") -> Listing:
        return self._retried(prefix, lambda: self._page(prefix, more, "/"))

    def read(
        self,
        wanted: ObjectInfo,
        start: int,
        end: int,
        *,
        into: bytearray | None = None,
        stops: CancelTokens = (),
    ) -> bytes | bytearray:
        def once() -> bytes | bytearray:
            content, answer = self._client.fetch(
                self.prefix + wanted.key, start, end, etag=wanted.etag, into=into, stops=stops
            )
            found = self._info(wanted.key, answer, wanted.size)
            # Not every server heeds the condition, and some have no ETags. If there is an ETag, times add nothing.
            if found.etag != wanted.etag or not (wanted.etag or self._is_as_old(found, wanted)):
                raise ConditionFailedError(f"{self._at(wanted.key).shown} was replaced while it was read: start again")
            if len(content) != end - start:
                raise EOFError(f"the answer ended after {len(content)} of {end - start} bytes")
            return content

        return self._retried(wanted.key, once, stops)

    def look(self, key: str, *, stops: CancelTokens = ()) -> ObjectInfo:
        """Return an object as it is now.

        Raises:
            RemoteNotFoundError: there is none.
        """
        answer = self._ask("head_object", self.prefix + key, stops=stops)
        return self._info(key, answer, answer["ContentLength"])

    def find(self, key: str) -> tuple[ObjectInfo, float]:
        answer = self._ask("head_object", self.prefix + key)
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        age = (now - answer["LastModified"]).total_seconds()
        return self._info(key, answer, answer["ContentLength"]), age

    def put(self, key: str, content: bytes, *, only_new: bool = False, only_if: str = "") -> str:
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if only_new else {}
        if only_if:
            condition["IfMatch"] = f'"{only_if}"'
        return etag_of(self._ask("put_object", self.prefix + key, Body=content, **condition))

    def upload(
        self,
        key: str,
        content: Content,
        *,
        only_new: bool = False,
        stops: CancelTokens = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> str:
        with translating(self._at(key)):
            return self._uploads.write(self.prefix + key, content, only_new=only_new, stops=stops, progress=progress)

    def upload_stream(
        self,
        key: str,
        blocks: Iterable[Block],
        most: int,
        *,
        stops: CancelTokens = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> str:
        """Write an object of at most `most` bytes, while its bytes come, like `upload`."""
        with translating(self._at(key)):
            return self._uploads.write_stream(self.prefix + key, blocks, most, stops=stops, progress=progress)

    def end_uploads(self, prefix: str) -> None:
        place = self.prefix + prefix
        answer = self._retried(prefix, lambda: self._client.ask("list_multipart_uploads", Prefix=place))
        for upload in answer.get("Uploads", ()):
            with suppress(RemoteNotFoundError):
                self._ask("abort_multipart_upload", upload["Key"], UploadId=upload["UploadId"])

    def delete(self, keys: list[str]) -> None:
        if len(keys) == 1:  # not every server knows the request for several
            with suppress(RemoteNotFoundError):
                self._ask("delete_object", self.prefix + keys[0])
            return
        for begin in range(0, len(keys), _DELETED_AT_ONCE):
            named = [{"Key": self.prefix + key} for key in keys[begin : begin + _DELETED_AT_ONCE]]
            asked = {"Objects": named, "Quiet": True}
            answer = self._retried(
                "",
                lambda asked=asked: self._client.ask("delete_objects", Delete=asked),  # type: ignore[misc]
            )
            for error in answer.get("Errors", ()):
                if error.get("Code") != "NoSuchKey":
                    raise RemoteError(f"{error.get('Key')} could not be removed: {error.get('Message')}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _is_as_old(self, found: ObjectInfo, listed: ObjectInfo) -> bool:
        """True if an object without an ETag is unchanged since the listing. `found`: its attributes from an answer.

        The two may give different times for one object. rclone's `serve s3` lists the modification time of a file,
        maybe copied from its original, but answers a GET with the start of the upload. If the times differ, the object
        is listed again.
        """
        return found.mtime_ns // 10**9 == listed.mtime_ns // 10**9 or listed in self._page(listed.key, "", "/").objects

    def _page(self, prefix: str, more: str, delimiter: str, stops: CancelTokens = ()) -> Listing:
        page = self._client.page(self.prefix + prefix, more, delimiter=delimiter, stops=stops)
        begin = len(self.prefix)
        objects = [ObjectInfo(found.key[begin:], *found[1:]) for found in page.objects]
        return Listing(objects, [folder[begin:].rstrip("/") for folder in page.folders], page.more)

    def _info(self, key: str, answer: dict[str, Any], size: int) -> ObjectInfo:
        return ObjectInfo(key, size, etag_of(answer), mtime_ns_of(answer.get("LastModified")))

    def _ask(
        self, method: str, key: str, *, body: Body | None = None, stops: CancelTokens = (), **arguments: Any
    ) -> dict[str, Any]:
        """Send a request for one key of the bucket, with retries. `key`: with the prefix."""
        return self._retries.call(
            self._where.at(key),
            lambda: self._client.ask(method, body=body, stops=stops, Key=key, **arguments),
            stops,
        )

    def _retried(self, key: str, request: Callable[[], _T], stops: CancelTokens = ()) -> _T:
        return self._retries.call(self._at(key), request, stops)

    def _at(self, key: str) -> Location:
        return self._where.at(f"{self.prefix}{key}".rstrip("/"))
