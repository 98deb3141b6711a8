"""S3Uploads: an object in S3 is written, in parts if it is large, and compared by the MD5s that the server tells.

It appears whole or not at all. A part's body is read as it is sent, and once more when it must be sent again; over
plain HTTP once before, too, since the signature is over its SHA-256. A multipart upload that fails is aborted; one that
could not be is noted (`store.clients.upload_notes`). The same user's next upload to the same bucket aborts it.

Threading: one upload is one thread's; its parts are sent by a few of its own.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from bentofs.store.clients.request_body import Body, Content
from bentofs.store.clients.s3_client import S3Client, etag_of
from bentofs.store.clients.upload_notes import Unfinished
from bentofs.store.errors import RemoteError, RemoteNotFoundError, StoreError
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

MAX_OBJECT = 5 << 40  # bytes
MAX_PARTS = 10_000
_LEAST_PART = 16 << 20  # bytes
_PART_GRAIN = 1 << 20  # parts are a multiple of it
_AT_ONCE = 4  # parts on their way
_ABORTS = 5
_MD5 = re.compile(r"[0-9a-f]{32}")


class Ask(Protocol):
    """`S3Client.ask` about one key, tried again as makes sense; raises StoreErrors."""

    def __call__(
        self, method: str, key: str, *, body: Body | None = None, stops: CancelTokens = (), **arguments: Any
    ) -> dict[str, Any]: ...


def part_size(length: int) -> int:
    """Bytes of each part but the last, for an object of `length` bytes."""
    least = -(-length // MAX_PARTS)
    return max(_LEAST_PART, -(-least // _PART_GRAIN) * _PART_GRAIN)


class S3Uploads:
    """Uploads to one bucket."""

    def __init__(self, client: S3Client, ask: Ask, location: str) -> None:
        """`location`: the bucket, for errors."""
        self._client = client
        self.ask = ask
        self._location = location
        self._unfinished: Unfinished | None = None

    def write(
        self,
        key: str,
        content: Content,
        *,
        only_new: bool = False,
        stops: CancelTokens = (),
        progress: Callable[[int], None] = lambda _count: None,
    ) -> str:
        """Make an object that replaces what is there; its ETag, empty if the server tells none.

        `only_new`: only if there is none yet, where the server heeds that.

        Raises:
            RemoteError: it is too large for S3, or what the server received is not what was sent.
            Exception: what `ask` raises, and the content.
        """
        if content.length > MAX_OBJECT:
            raise RemoteError(f"{self.shown(key)}: S3 takes no object of more than {MAX_OBJECT:,} bytes")
        self._end_unfinished()
        condition = {"IfNoneMatch": "*"} if only_new else {}
        size = part_size(content.length)
        if content.length > size:
            options = self._client.write_options
            return _Multipart(self, key, content, size, options, condition, stops, progress).run()
        body, options = Body(content), {**self._client.write_options, **condition}
        answer = self.ask("put_object", key, body=body, stops=stops, ContentLength=content.length, **options)
        if is_md5(answer) and etag_of(answer) != body.md5():
            self.ask("delete_object", key)
            raise RemoteError(f"{self.shown(key)}: what the server received is not what was sent")
        progress(content.length)
        return etag_of(answer)

    def abort(self, key: str, upload: str) -> None:
        """End a multipart upload, so that nothing of it is kept.

        Raises:
            StoreError: it could not be; it stays noted as unfinished.
        """
        for _ in range(_ABORTS):
            try:
                self.ask("abort_multipart_upload", key, UploadId=upload)
                # A part that was on its way may come after it.
                self.ask("list_parts", key, UploadId=upload)
            except RemoteNotFoundError:
                return
        raise RemoteError(f"{self.shown(key)}: an unfinished multipart upload of it could not be ended")

    def unfinished(self) -> Unfinished:
        """The multipart uploads to this bucket."""
        if self._unfinished is None:
            self._unfinished = Unfinished(f"{self._client.endpoint}/{self._client.bucket}")
        return self._unfinished

    def shown(self, key: str) -> str:
        """Where an object lies, for a sentence."""
        return printable(f"{self._location}/{key}")

    def _end_unfinished(self) -> None:
        """End the uploads that processes which are gone have left in this bucket."""
        for key, upload, forget in self.unfinished().left_behind():
            try:
                self.abort(key, upload)
            except StoreError as error:
                log.warning("%s", error)
            else:
                forget()


class _Multipart:
    """One object that is written in parts."""

    def __init__(
        self,
        uploads: S3Uploads,
        key: str,
        content: Content,
        size: int,
        options: dict[str, Any],
        condition: dict[str, Any],
        stops: CancelTokens,
        progress: Callable[[int], None],
    ) -> None:
        """`size`: of a part; `options`: of the object; `condition`: on which it is made."""
        self._uploads = uploads
        self._key = key
        self._content = content
        self._size = size
        self._options = options
        self._condition = condition
        self._progress = progress
        self._stop = threading.Event()
        self._stops = (*stops, self._stop)

    def run(self) -> str:
        """Send all; the object's ETag, as far as it can be told what it must be."""
        upload = self._ask("create_multipart_upload", **self._options)["UploadId"]
        # Whatever happens to this process, the next one ends what it began.
        with self._uploads.unfinished().noted(self._key, upload) as done:
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
            self._uploads.abort(self._key, upload)
        except StoreError as error:
            log.warning(
                "%s; until the next upload to this bucket has ended it, the server keeps what it has of it", error
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
        answer = self._ask("upload_part", body, UploadId=upload, PartNumber=number, ContentLength=length)
        if is_md5(answer) and etag_of(answer) != body.md5():
            shown = self._uploads.shown(self._key)
            raise RemoteError(f"{shown}: what the server received is not what was sent, in part {number}")
        self._progress(length)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> str:
        self._stop.clear()
        sums = [part["ETag"].strip('"') for part in parts]
        expected = ""
        if all(_MD5.fullmatch(text) for text in sums):
            whole = hashlib.md5(b"".join(map(bytes.fromhex, sums)), usedforsecurity=False)
            expected = f"{whole.hexdigest()}-{len(sums)}"
        try:
            answer = self._ask(
                "complete_multipart_upload", UploadId=upload, MultipartUpload={"Parts": parts}, **self._condition
            )
        except RemoteNotFoundError:
            # An earlier try may have come through, and only its answer was lost.
            if not expected or etag_of(self._ask("head_object")) != expected:
                raise
            return expected
        etag = etag_of(answer)
        return expected if expected and etag.endswith(f"-{len(sums)}") else etag

    def _ask(self, method: str, body: Body | None = None, **arguments: Any) -> dict[str, Any]:
        return self._uploads.ask(method, self._key, body=body, stops=self._stops, **arguments)


def is_md5(answer: dict[str, Any]) -> bool:
    """Whether the ETag in an answer is the MD5 of what was sent: it is not where the server encrypts by other keys."""
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
    return not encrypted and _MD5.fullmatch(etag_of(answer)) is not None
