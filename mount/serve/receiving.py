"""Receiving: PUT and POST of files into `incoming/`.

The answer comes once the outcome is known: 201 when the model is in the store and durable, 200 if it was there already.
A refusal has the sentence of the note beside the file (`mount.serve.answers`).
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import BodyPartReader, hdrs
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import BaseRequest, RequestPayloadError, Response

from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.serve.answers import refusal, sentence_answer, status_of
from bentofs.mount.serve.body import BLOCK, Blocks, Body
from bentofs.mount.serve.etags import etag_of_upload
from bentofs.mount.serve.ranges import Validators, precondition_status
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import BadTargetError, Target, checked_name
from bentofs.mount.serve.uploading import Done, Part, PartError, Uploads
from bentofs.store.errors import NotFoundError, StoreError

_PART = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.ASCII)
_MOST_FILES = 100  # of one form
_MOST_FIELD = 64 << 10  # bytes of a field that is no file


class Receiving:
    """Answers requests that bring files."""

    def __init__(self, site: Site, namespace: Namespace) -> None:
        self._site = site
        self._namespace = namespace
        self.uploads = Uploads(site, namespace)

    async def put(self, request: BaseRequest, body: Body, target: Target, below: str) -> Response:
        """Answer PUT of a file; `below`: its path in `incoming/`.

        Raises:
            StoreError, OSError: why it was not imported.
        """
        if not below or target.is_folder:
            return sentence_answer(405, "PUT needs the name of a file: curl -T FILE adds it behind a slash")
        unread = _unreadable(request)
        if unread is not None:
            return unread
        if not await self._site.read(self.has_place_for, below):
            return sentence_answer(409, "the directory of this name is not there, or the name is a directory's")
        if not await self._site.read(self._may_replace, below, request.headers):
            return sentence_answer(412, "the file is not the one that the request is for")
        try:
            if hdrs.CONTENT_RANGE in request.headers:
                return await self._put_part(request, body, below)
            if body.size == 0:
                return Response(status=201 if await self.uploads.make_empty(below) else 204)
            return _done(target.names[-1], await self.uploads.take(below, body.blocks(), body.size))
        except PartError as error:
            status = 400 if error.has is None else 416
            headers = {} if error.has is None else {"Content-Range": f"bytes */{error.has}"}
            return sentence_answer(status, str(error), headers)
        except RequestPayloadError:
            return sentence_answer(400, "the body of the request is malformed")

    async def _put_part(self, request: BaseRequest, body: Body, below: str) -> Response:
        match = _PART.fullmatch(request.headers[hdrs.CONTENT_RANGE].strip())
        if match is None:
            return sentence_answer(400, "Content-Range must be `bytes FIRST-LAST/SIZE`")
        part = Part(int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3]))
        if part.end <= part.start or (part.size is not None and part.end > part.size):
            return sentence_answer(400, "Content-Range ends before it begins, or behind the file's end")
        if body.size is not None and body.size != part.end - part.start:
            return sentence_answer(400, f"Content-Range is of {part.end - part.start} bytes, but {body.size} come")
        name = below.rpartition("/")[2]
        if part.start == 0 and part.is_last:  # `curl -C - -T` sends all of it so
            return _done(name, await self.uploads.take(below, body.blocks(), part.size))
        done = await self.uploads.take_part(below, body.blocks(), part)
        if done is None:
            return _json(202, {"name": name, "outcome": "receiving", "size": part.end})
        return _done(name, done)

    async def post(self, request: BaseRequest, body: Body, below: str) -> tuple[int, list[dict[str, Any]]]:
        """Take the files of a form; `below`: a directory in `incoming/`. Return a status for all, and the outcome of
        each.

        Raises:
            BadTargetError: it is no form of files.
            StoreError, OSError: the directory is not there.
        """
        if not request.content_type.lower().startswith("multipart/form-data"):
            raise BadTargetError("POST takes a form with files (multipart/form-data); PUT takes a file as it is")
        await self._site.read(self._namespace.check_folder, below)
        await body.begin()
        outcomes: list[dict[str, Any]] = []
        try:
            reader = await request.multipart()
            while (part := await body.waiting(reader.next())) is not None:
                if not isinstance(part, BodyPartReader):
                    raise BadTargetError("a form in a form is not taken")
                if part.filename is None:
                    await _skip(part, body)
                    continue
                if len(outcomes) >= _MOST_FILES:
                    raise BadTargetError(f"a form may have {_MOST_FILES} files at most")
                outcomes.append(await self._take(part, body, below))
        except (ValueError, RuntimeError, AssertionError, RequestPayloadError, HttpProcessingError):
            raise BadTargetError("the form is malformed") from None
        if not outcomes:
            raise BadTargetError("the form has no file")
        return max((outcome["status"] for outcome in outcomes), key=lambda status: (status >= 300, status)), outcomes

    async def _take(self, part: BodyPartReader, body: Body, folder: str) -> dict[str, Any]:
        name = re.split(r"[/\\]", part.filename or "")[-1]
        try:
            below = "/".join(filter(None, (folder, checked_name(name.encode("utf-8", "surrogateescape")))))
            if not await self._site.read(self.has_place_for, below):
                raise BadTargetError("the name is a directory's")
            done = await self.uploads.take(below, _blocks_of(part, body), None)
        except (StoreError, OSError, BadTargetError) as error:
            if isinstance(error, ConnectionError):
                raise
            await _skip(part, body, most=None)
            refused = refusal(None, error)
            return {"name": name, "status": status_of(error), "error": (refused.text or "").strip()}
        return {**done.fields(name), "status": done.status}

    def _may_replace(self, below: str, headers: Mapping[str, str]) -> bool:
        """Tell whether the conditions of a request hold."""
        if not any(name in headers for name in ("If-Match", "If-None-Match", "If-Unmodified-Since")):
            return True
        try:
            attributes = self._namespace.attributes(below)
        except NotFoundError:
            return "If-Match" not in headers
        validators = Validators(etag_of_upload(attributes), attributes.mtime_ns)
        return precondition_status(headers, validators, is_read=False) is None

    def has_place_for(self, below: str) -> bool:
        """Tell whether a file of this path can be there: its directory is, and no directory has its name."""
        return self._is_folder(below.rpartition("/")[0]) and not self._is_folder(below)

    def _is_folder(self, below: str) -> bool:
        try:
            self._namespace.check_folder(below)
        except (NotFoundError, NotADirectoryError):
            return False
        return True


def _unreadable(request: BaseRequest) -> Response | None:
    """Return a refusal for a body that is encoded; None if it is not."""
    if request.headers.get(hdrs.TRANSFER_ENCODING, "chunked").strip().lower() != "chunked":
        return sentence_answer(501, "the only Transfer-Encoding that is understood is chunked")
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() not in ("identity", ""):
        return sentence_answer(415, "send the file as it is, without Content-Encoding", {"Accept-Encoding": "identity"})
    return None


def _done(name: str, done: Done) -> Response:
    return _json(done.status, done.fields(name))


def _json(status: int, fields: dict[str, Any]) -> Response:
    return Response(
        status=status,
        text=json.dumps(fields) + "\n",
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def _blocks_of(part: BodyPartReader, body: Body) -> AsyncIterator[Blocks]:
    parts: list[bytes] = []
    size = 0
    while block := await body.waiting(part.read_chunk(BLOCK // 4)):
        parts.append(block)
        size += len(block)
        if size >= BLOCK:
            yield (b"".join(parts),)
            parts, size = [], 0
    if size:
        yield (b"".join(parts),)


async def _skip(part: BodyPartReader, body: Body, most: int | None = _MOST_FIELD) -> None:
    """Skip a part of a form."""
    size = 0
    while block := await body.waiting(part.read_chunk(BLOCK // 4)):
        size += len(block)
        if most is not None and size > most:
            raise BadTargetError("a field of the form is too long")
