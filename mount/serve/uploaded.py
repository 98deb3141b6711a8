"""Uploaded: GET and HEAD of the files in `incoming/`: notes, unfinished uploads, and names that have become models."""

from __future__ import annotations

import os
import stat

from aiohttp.web import BaseRequest, StreamResponse

from bentofs.mount.incoming.handles import UploadHandles
from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.connections import Activity, Phase
from bentofs.mount.serve.etags import etag_of_upload
from bentofs.mount.serve.media import OF_FILES, media_type
from bentofs.mount.serve.pages.pages import Pages
from bentofs.mount.serve.ranges import Span, Validators, wanted_spans
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.streaming import Streamer
from bentofs.mount.view.nodes import Attributes
from bentofs.mount.view.traffic import Count
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import NotFoundError, SourceChangedError
from bentofs.store.formats.pieces import Views


class Uploaded:
    """Answers requests that read `incoming/`."""

    def __init__(self, site: Site, namespace: Namespace, pages: Pages) -> None:
        self._site = site
        self._namespace = namespace
        self._pages = pages
        self._streamer = Streamer(site)

    async def answer(self, request: BaseRequest, activity: Activity, below: str) -> StreamResponse:
        """Answer GET or HEAD; `below`: the path in `incoming/`.

        Raises:
            NotFoundError: there is no such name, and nothing was imported under it.
        """
        attributes = await self._site.read(self._namespace.attributes, below)
        if stat.S_ISDIR(attributes.mode):
            return await self._pages.drop_box(request, below)
        headers = _headers(below, attributes)
        if request.method == "HEAD":
            response = StreamResponse(headers=headers)
            response.content_length = attributes.size
            return response
        try:
            number = await self._site.read(self._namespace.files.open, below, os.O_RDONLY, self._site.user)
        except NotFoundError as error:
            return sentence_answer(410, str(error))
        try:
            return await self._send(request, activity, number, headers)
        finally:
            await self._site.read(self._namespace.files.release, number)

    async def _send(
        self, request: BaseRequest, activity: Activity, number: int, headers: dict[str, str]
    ) -> StreamResponse:
        attributes = await self._site.read(self._namespace.files.attributes, number)
        size = attributes.size
        spans = wanted_spans(request.headers, Validators(etag_of_upload(attributes), attributes.mtime_ns), size)
        if spans == []:
            return sentence_answer(416, f"the file has only {size} bytes", {"Content-Range": f"bytes */{size}"})
        span = spans[0] if spans is not None and len(spans) == 1 else Span(0, size)
        if spans is not None and len(spans) == 1:
            response = StreamResponse(status=206, headers={**headers, "Content-Range": span.content_range(size)})
        else:
            response = StreamResponse(headers=headers)
        response.content_length = span.length
        await response.prepare(request)
        activity.enter(Phase.SENDING)
        piece = _Piece(self._namespace.files, number, size)
        try:
            await self._streamer.send(request, response, piece, [(b"", span)], Count(INCOMING), activity)
        except SourceChangedError:
            if request.transport is not None:
                request.transport.close()
        return response


class _Piece:
    """The bytes of an open file of `incoming/`."""

    def __init__(self, files: UploadHandles, number: int, length: int) -> None:
        self._files = files
        self._number = number
        self.length = length

    def read_into(self, views: Views, offset: int) -> None:
        for view in views:
            if self._files.read_into(self._number, view, offset) < len(view):
                raise SourceChangedError("the upload was changed while it was read")
            offset += len(view)


def _headers(below: str, attributes: Attributes) -> dict[str, str]:
    kind, disposition = media_type(below.rpartition("/")[2], is_models=True)
    return {
        **OF_FILES,
        "Content-Type": kind,
        "Content-Disposition": disposition,
        "ETag": etag_of_upload(attributes),
        "Last-Modified": Validators(None, attributes.mtime_ns).last_modified,
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
    }
