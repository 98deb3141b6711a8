"""S3Uploads: writes objects to S3, in parts if they are large, and compares them by the MD5s that the server returns.

An object appears whole or not at all. A part is read once, into memory (`store.clients.part_buffers`). Only the parts
of objects beyond 160 GB are too large for that: they are read once for the signature, and again for each attempt to
send them. A failed multipart upload is aborted. If the abort fails, the upload stays noted
(`store.clients.upload_notes`), and the same user's next upload to the bucket aborts it.

Threading: one thread makes an upload; a few threads of its own send the parts.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import logging
import operator
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, Protocol

from bentofs.store.clients.part_buffers import Part, PartBuffers, PartCutter
from bentofs.store.clients.request_body import Body, Content
from bentofs.store.clients.s3_client import S3Client, etag_of
from bentofs.store.clients.upload_notes import Unfinished
from bentofs.store.errors import RemoteError, RemoteNotFoundError, StoreError
from bentofs.store.formats.gap import Block
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

MAX_OBJECT = 5 << 40  # bytes
MAX_PARTS = 10_000
_LEAST_PART = 8 << 20  # bytes
_MOST_IN_MEMORY = 16 << 20  # bytes; larger parts are not kept in memory
_PART_GRAIN = 1 << 20  # a part's size is a multiple of it
_AT_ONCE = 4  # parts sent in parallel
_ABORTS = 5
_MD5 = re.compile(r"[0-9a-f]{32}")


class Ask(Protocol):
    """Calls `S3Client.ask` for one key, with retries. Raises StoreErrors."""

    def __call__(
        self, method: str, key: str, *, body: Body | None = None, stops: CancelTokens = (), **arguments: Any
    ) -> dict[str, Any]: ...


def part_size(length: int) -> int:
    """Return the size in bytes of each part except the last, for an object of `length` bytes."""
    least = -(-length // MAX_PARTS)
    return max(_LEAST_PART, -(-least // _PART_GRAIN) * _PART_GRAIN)


class S3Uploads:
    """Uploads to one bucket."""

    def __init__(self, client: S3Client, ask: Ask, location: str) -> None:
        """`location`: the bucket, named in errors."""
        self._client = client
        self.ask = ask
        self._location = location
        self._unfinished: Unfinished | None = None
        self._buffers = PartBuffers(_AT_ONCE)

    def write(
        self,
        key: str,
        content: Content,
        *,
        only_new: bool,
        stops: CancelTokens,
        progress: Callable[[int], None],
    ) -> str:
        """Write an object, replacing an existing one, and return its ETag; empty if the server returns none.

        `only_new`: fail if the object exists, provided the server heeds that.

        Raises:
            RemoteError: it is too large for S3, or the server did not receive the bytes that were sent.
            Exception: raised by `ask` or by the content.
        """
        if content.length > MAX_OBJECT:
            raise RemoteError(f"{self.shown(key)}: S3 takes no object of more than {MAX_OBJECT:,} bytes")
        self._end_unfinished(stops)
        condition = {"IfNoneMatch": "*"} if only_new else {}
        size = part_size(content.length)
        if content.length > size:
            options = self._client.write_options
            upload = _Multipart(self, key, options, condition, stops, progress)
            try:
                return upload.run(lambda upload_id: upload.send(upload_id, content, size))
            finally:
                self._buffers.clear()
        options = {**self._client.write_options, **condition}
        with self.body(content, 0, content.length, stops) as body:
            answer = self.ask("put_object", key, body=body, stops=stops, ContentLength=content.length, **options)
            if is_md5(answer) and etag_of(answer) != body.md5():
                self.ask("delete_object", key)
                raise RemoteError(f"{self.shown(key)}: the server received other bytes than were sent: try again")
        progress(content.length)
        return etag_of(answer)

    def write_stream(
        self, key: str, blocks: Iterable[Block], most: int, *, stops: CancelTokens, progress: Callable[[int], None]
    ) -> str:
        """Write an object of at most `most` bytes in parts, while its bytes come. Return its ETag like `write`, and
        raise the same errors."""
        self._end_unfinished(stops)
        upload = _Multipart(self, key, self._client.write_options, {}, stops, progress)
        try:
            return upload.run(lambda upload_id: upload.send_stream(upload_id, blocks, part_size(most)))
        finally:
            self._buffers.clear()

    @contextmanager
    def body(self, content: Content, start: int, length: int, stops: CancelTokens) -> Iterator[Body]:
        """Give [start, start + length) of a content for the time of the context, in memory if it is not too large.
        Raises what `PartBuffers.filled` raises."""
        if length > _MOST_IN_MEMORY:
            yield Body(content, start, length)
        else:
            with self._buffers.filled(content, start, length, stops) as body:
                yield body

    def new_part(self, number: int, length: int, stops: CancelTokens) -> Part:
        """Return an empty part of a stream. Raises what `PartBuffers.taken` raises."""
        return self._buffers.new_part(number, length, stops)

    def abort(self, key: str, upload: str) -> None:
        """Abort a multipart upload, so that the server keeps no parts.

        Raises:
            StoreError: the abort failed; the upload stays noted as unfinished.
        """
        for _ in range(_ABORTS):
            try:
                self.ask("abort_multipart_upload", key, UploadId=upload)
                # A part that is in flight may arrive after the abort.
                self.ask("list_parts", key, UploadId=upload)
            except RemoteNotFoundError:
                return
        raise RemoteError(
            f"{self.shown(key)}: its unfinished multipart upload could not be aborted; the next export there does it"
        )

    def unfinished(self, stops: CancelTokens) -> Unfinished:
        """Return the notes on multipart uploads to this bucket. Raises what `S3Client.endpoint` raises."""
        if self._unfinished is None:
            self._unfinished = Unfinished(f"{self._client.endpoint(stops)}/{self._client.bucket}")
        return self._unfinished

    def shown(self, key: str) -> str:
        """Return the location of an object, for an error message."""
        return printable(f"{self._location}/{key}")

    def _end_unfinished(self, stops: CancelTokens) -> None:
        """Abort the uploads to this bucket that dead processes left behind."""
        for key, upload, forget in self.unfinished(stops).left_behind():
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
        options: dict[str, Any],
        condition: dict[str, Any],
        stops: CancelTokens,
        progress: Callable[[int], None],
    ) -> None:
        """`options`: of the object; `condition`: for its creation."""
        self._uploads = uploads
        self._key = key
        self._options = options
        self._condition = condition
        self._progress = progress
        self._stop = threading.Event()
        self._stops = (*stops, self._stop)

    def run(self, send: Callable[[str], list[dict[str, Any]]]) -> str:
        """Make the object. `send`: sends all parts of an upload with this id. Return the ETag that the object must
        have, if it can be computed; else the server's."""
        upload = self._ask("create_multipart_upload", **self._options)["UploadId"]
        # If this process dies, the next one aborts the upload.
        with self._uploads.unfinished(self._stops).noted(self._key, upload) as done:
            try:
                parts = send(upload)
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
            log.warning("%s; the server keeps its parts until the next upload to this bucket removes them", error)
        else:
            done()

    def send(self, upload: str, content: Content, size: int) -> list[dict[str, Any]]:
        """Send the parts of a content, each of `size` bytes but the last. Return the list that completes the upload."""
        starts = range(0, content.length, size)
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="s3-write")
        try:
            sent = [
                pool.submit(self._send_part, upload, content, size, number, start)
                for number, start in enumerate(starts, 1)
            ]
            concurrent.futures.wait(sent, return_when=concurrent.futures.FIRST_EXCEPTION)
            for future in sent:
                if future.done():
                    future.result()
            return [future.result() for future in sent]
        finally:
            self._stop.set()  # after a failure, the other parts are useless
            pool.shutdown(wait=True, cancel_futures=True)

    def send_stream(self, upload: str, blocks: Iterable[Block], size: int) -> list[dict[str, Any]]:
        """Do what `send` does, while the content comes."""
        cutter = PartCutter(lambda number: self._uploads.new_part(number, size, self._stops))
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="s3-write")
        sent: list[Future[dict[str, Any]]] = []
        try:
            with closing(cutter.cut(blocks)) as parts:
                for part in parts:
                    sent.append(pool.submit(self._send_cut, upload, part))
                    for future in sent:
                        if future.done():
                            future.result()
            return sorted((future.result() for future in sent), key=operator.itemgetter("PartNumber"))
        finally:
            self._stop.set()  # after a failure, the other parts are useless
            pool.shutdown(wait=True)  # each part frees its buffer

    def _send_part(self, upload: str, content: Content, size: int, number: int, start: int) -> dict[str, Any]:
        length = min(size, content.length - start)
        with self._uploads.body(content, start, length, self._stops) as body:
            return self._send_body(upload, number, body)

    def _send_cut(self, upload: str, part: Part) -> dict[str, Any]:
        try:
            return self._send_body(upload, part.number, part.body())
        finally:
            part.free()

    def _send_body(self, upload: str, number: int, body: Body) -> dict[str, Any]:
        length = len(body)
        answer = self._ask("upload_part", body, UploadId=upload, PartNumber=number, ContentLength=length)
        if is_md5(answer) and etag_of(answer) != body.md5():
            shown = self._uploads.shown(self._key)
            raise RemoteError(f"{shown}: the server received other bytes than were sent, in part {number}: try again")
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
            # An earlier attempt may have succeeded, and only its answer was lost.
            if not expected or etag_of(self._ask("head_object")) != expected:
                raise
            return expected
        etag = etag_of(answer)
        return expected if expected and etag.endswith(f"-{len(sums)}") else etag

    def _ask(self, method: str, body: Body | None = None, **arguments: Any) -> dict[str, Any]:
        return self._uploads.ask(method, self._key, body=body, stops=self._stops, **arguments)


def is_md5(answer: dict[str, Any]) -> bool:
    """True if the ETag in an answer is the MD5 of the bytes sent. It is not if the server encrypts with KMS or customer
    keys."""
    encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer
    return not encrypted and _MD5.fullmatch(etag_of(answer)) is not None
