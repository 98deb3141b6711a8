"""Reading: GET and HEAD of the files of the tree.

A response has the bytes of one generation. If that is gone, the response ends short of its Content-Length.
"""

from __future__ import annotations

import base64
import itertools
import logging
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp.web import BaseRequest, Response, StreamResponse

from bentofs.mount.errors import errno_of
from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.connections import Activity, Phase
from bentofs.mount.serve.etags import etag_of
from bentofs.mount.serve.media import OF_FILES, media_type
from bentofs.mount.serve.ranges import Span, Validators, precondition_status, wanted_spans
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.streaming import Streamer
from bentofs.mount.view.nodes import Attributes, File
from bentofs.store.errors import SourceChangedError, StoreError
from bentofs.store.formats.pieces import Piece
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)


class _Opened(NamedTuple):
    """A file of one generation."""

    name: str
    file: File
    attributes: Attributes
    sha256: str | None
    piece: Piece | None  # None for HEAD
    etag: str | None

    @property
    def validators(self) -> Validators:
        return Validators(self.etag, self.attributes.mtime_ns)


class Reading:
    """Answers requests for files."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._streamer = Streamer(site)
        self._numbers = itertools.count(1)

    async def answer(
        self, request: BaseRequest, activity: Activity, names: Sequence[str], file: File
    ) -> StreamResponse:
        """Answer GET or HEAD of a file; `names`: its place.

        Raises:
            StoreError: it cannot be opened.
        """
        is_head = request.method == "HEAD"
        opened = await self._site.read(_open, names[-1], file, is_head)
        size = opened.attributes.size
        headers = _headers(opened)
        status = precondition_status(request.headers, opened.validators, is_read=True)
        if status == 412:
            return sentence_answer(412, "the file is not the one that the request is for", headers)
        if status == 304:
            return Response(status=304, headers=headers)
        spans = None if is_head else wanted_spans(request.headers, opened.validators, size)
        if spans == []:
            unsatisfied = {**headers, "Content-Range": f"bytes */{size}"}
            del unsatisfied["Content-Disposition"], unsatisfied["Content-Type"]
            return sentence_answer(416, f"the file has only {size} bytes", unsatisfied)
        response, parts = _response(headers, spans, size)
        if opened.piece is None:
            return response
        await self._send(request, response, opened, opened.piece, parts, activity)
        return response

    async def _send(
        self,
        request: BaseRequest,
        response: StreamResponse,
        opened: _Opened,
        piece: Piece,
        parts: Sequence[tuple[bytes, Span]],
        activity: Activity,
    ) -> None:
        number = next(self._numbers)
        self._site.traffic.opened(number, opened.file.kind)
        try:
            await response.prepare(request)
            activity.enter(Phase.SENDING)
            await self._streamer.send(request, response, piece, parts, self._site.traffic.by_handle[number], activity)
        except (StoreError, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            errno_of(error, "GET")
            log.info("GET of %s ended short: %s", printable(opened.name), error)
            if request.transport is not None:
                request.transport.close()
        finally:
            self._site.traffic.closed(number)


def _open(name: str, file: File, is_head: bool) -> _Opened:
    """Open a file as it is now. Try once more if it is replaced just then."""
    for is_last in (False, True):
        try:
            renewed = file.renewed()
            attributes = renewed.attributes()
            etag = etag_of(renewed)
            return _Opened(name, renewed, attributes, renewed.sha256(), None if is_head else renewed.open(), etag)
        except SourceChangedError:
            if is_last:
                raise
    raise AssertionError


def _headers(opened: _Opened) -> dict[str, str]:
    kind, disposition = media_type(opened.name, is_models=opened.file.kind == "files")
    headers = {**OF_FILES, "Content-Type": kind, "Content-Disposition": disposition}
    if opened.etag is None:
        return {**headers, "Cache-Control": "no-store"}
    headers |= {
        "ETag": opened.etag,
        "Last-Modified": opened.validators.last_modified,
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
    }
    if opened.sha256 is not None:
        headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(opened.sha256)).decode()}:"
    return headers


def _response(
    headers: dict[str, str], spans: list[Span] | None, size: int
) -> tuple[StreamResponse, list[tuple[bytes, Span]]]:
    """Return the response for ranges of a file (None: all of it), and the parts of its body."""
    if spans is None:
        response = StreamResponse(headers=headers)
        response.content_length = size
        return response, [(b"", Span(0, size))]
    if len(spans) == 1:
        response = StreamResponse(status=206, headers={**headers, "Content-Range": spans[0].content_range(size)})
        response.content_length = spans[0].length
        return response, [(b"", spans[0])]
    boundary = secrets.token_hex(16)
    parts = []
    for number, span in enumerate(spans):
        before = "" if number == 0 else "\r\n"
        head = f"{before}--{boundary}\r\nContent-Type: {headers['Content-Type']}\r\n"
        parts.append((f"{head}Content-Range: {span.content_range(size)}\r\n\r\n".encode(), span))
    parts.append((f"\r\n--{boundary}--\r\n".encode(), Span(0, 0)))
    kept = {**headers, "Content-Type": f"multipart/byteranges; boundary={boundary}"}
    response = StreamResponse(status=206, headers=kept)
    response.content_length = sum(len(head) + span.length for head, span in parts)
    return response, parts
