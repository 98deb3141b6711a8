"""Dav: the handler of WebDAV's methods, apart from GET, HEAD and PUT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from aiohttp.web import BaseRequest, Response, StreamResponse

from bentofs.mount.serve.answers import refusal, sentence_answer, status_of
from bentofs.mount.serve.body import Body
from bentofs.mount.serve.dav import xml
from bentofs.mount.serve.dav.changes import Changes, Failures
from bentofs.mount.serve.dav.dead import DeadProperties, TooLargeError
from bentofs.mount.serve.dav.entries import Entries
from bentofs.mount.serve.dav.locking import Locking
from bentofs.mount.serve.dav.propfind import Propfind
from bentofs.mount.serve.dav.xml import DAV
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import BadTargetError, Target, href, parse_target
from bentofs.mount.view.tree import INCOMING

_READS = ("OPTIONS", "GET", "HEAD", "PROPFIND")
_CHANGES = ("PUT", "POST", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK")


class Dav:
    """Answers the methods of WebDAV."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._entries = Entries(site)
        self._dead = DeadProperties()
        self.locking = Locking(site, self._entries)
        self._propfind = Propfind(site, self._entries, self._dead, self.locking.locks)
        self._changes = Changes(site, site.namespace) if site.namespace is not None else None

    def allowed(self, target: Target) -> Sequence[str]:
        """Return the methods of a path."""
        return (*_READS, *_CHANGES) if self._site.below_incoming(target.names) is not None else _READS

    def options(self, target: Target) -> Response:
        """Answer OPTIONS."""
        headers = {"DAV": "1, 2", "MS-Author-Via": "DAV", "Allow": ", ".join(self.allowed(target))}
        return Response(status=200, headers={**headers, "Accept-Ranges": "bytes"})

    async def answer(self, request: BaseRequest, body: Body, target: Target) -> StreamResponse | None:
        """Answer a method of WebDAV. Return None if it is none, or is not for this place.

        Raises:
            StoreError, OSError, BadTargetError: it cannot be done.
            LockedError: a lock of another client forbids it.
        """
        method = request.method
        if method == "PROPFIND":
            return await self._propfind.answer(request, body, target)
        below = self._site.below_incoming(target.names)
        if below is None or self._changes is None:
            return None
        if method in ("LOCK", "UNLOCK"):
            return await self.locking.answer(request, body, target, below)
        place = _Place(request, target, below)
        if method == "PROPPATCH":
            return await self._proppatch(place, body)
        if method == "MKCOL":
            return await self._make(place, body, self._changes)
        if method == "DELETE":
            return await self._delete(place, self._changes)
        if method in ("COPY", "MOVE"):
            return await self._transfer(place, self._changes, is_move=method == "MOVE")
        return None

    async def _proppatch(self, place: _Place, body: Body) -> Response:
        entry = await self._site.read(self._entries.entry, place.target.names)
        await self.locking.check(place.request, place.target, place.below)
        root = await xml.read_xml(body)
        if root is None or root.tag != f"{DAV}propertyupdate":
            raise BadTargetError("PROPPATCH needs a propertyupdate as its body")
        changes = _changes_of(root)
        protected = [name for name in changes if name.startswith(DAV)]
        if protected:
            others = [xml.Property(name) for name in changes if name not in protected]
            told = xml.response(entry.href, (), [*protected, *(prop.name for prop in others)], status=403)
            return _multistatus(told)
        try:
            self._dead.change(place.below, changes)
        except TooLargeError:
            return sentence_answer(507, "the properties of one resource may have 64 KiB at most")
        return _multistatus(xml.response(entry.href, [xml.Property(name) for name in changes]))

    async def _make(self, place: _Place, body: Body, changes: Changes) -> Response:
        if await body.whole(0) != b"":
            return sentence_answer(415, "MKCOL takes no body")
        if await self._site.read(changes.is_folder, place.below) is not None:
            return sentence_answer(405, "it is there already")
        if not await self._site.read(changes.is_folder, place.parent):
            return sentence_answer(409, "the directory above is not there")
        await self.locking.check(place.request, place.target, place.below, changes_parent=True)
        await self._site.write(changes.make_folder, place.below)
        return Response(status=201)

    async def _delete(self, place: _Place, changes: Changes) -> Response:
        if not place.below:
            return sentence_answer(403, "incoming/ itself stays")
        await self._site.read(self._entries.entry, place.target.names)  # raises if it is not there
        await self.locking.check(place.request, place.target, place.below, changes_parent=True, with_members=True)
        failures = await self._site.write(changes.delete, place.below)
        if failures:
            return _failed(place.below, failures)
        self._forget(place.below)
        return Response(status=204)

    async def _transfer(self, place: _Place, changes: Changes, *, is_move: bool) -> Response:
        target = _destination(place.request)
        new = self._site.below_incoming(target.names)
        if not place.below or not new:
            return sentence_answer(403, "only files in incoming/ are copied and moved, and only there")
        if new == place.below or new.startswith(f"{place.below}/") or place.below.startswith(f"{new}/"):
            return sentence_answer(403, "source and destination are the same, or one lies in the other")
        source_is_folder = await self._site.read(changes.is_folder, place.below)
        if source_is_folder is None:
            return sentence_answer(404, "there is nothing to copy or move")
        if not await self._site.read(changes.is_folder, new.rpartition("/")[0]):
            return sentence_answer(409, "the directory of the destination is not there")
        replaced = await self._site.read(changes.is_folder, new)
        if replaced is not None and place.request.headers.get("Overwrite", "T").strip().upper() == "F":
            return sentence_answer(412, "the destination is there already, and Overwrite forbids to replace it")
        if is_move:
            await self.locking.check(place.request, place.target, place.below, changes_parent=True, with_members=True)
        await self.locking.check(place.request, target, new, changes_parent=True, with_members=True)
        if replaced is not None and (replaced or source_is_folder or not is_move):
            failures = await self._site.write(changes.delete, new)
            if failures:
                return _failed(new, failures)
        if replaced is not None:
            self._forget(new)
        if is_move:
            await self._site.write(changes.move, place.below, new)
            self._dead.copy(place.below, new)
            self._forget(place.below)
        else:
            deep = place.request.headers.get("Depth", "infinity").strip() != "0"
            failures = await self._site.write(lambda: changes.copy(place.below, new, deep=deep))
            if failures:
                return _failed(new, failures)
            self._dead.copy(place.below, new)
        return Response(status=201 if replaced is None else 204)

    def _forget(self, below: str) -> None:
        self._dead.forget(below)
        self.locking.locks.forget(below)


class _Place(NamedTuple):
    """A request for a path in `incoming/`."""

    request: BaseRequest
    target: Target
    below: str

    @property
    def parent(self) -> str:
        return self.below.rpartition("/")[0]


def _destination(request: BaseRequest) -> Target:
    header = request.headers.get("Destination")
    if header is None:
        raise BadTargetError("COPY and MOVE need a Destination")
    target = parse_target(header)
    if target.host is not None and target.host.lower() != request.headers.get("Host", "").lower():
        raise BadTargetError("the Destination is on another server")
    return target


def _changes_of(root: ElementTree.Element) -> dict[str, str | None]:
    """Return the properties that a propertyupdate sets, and those that it removes (None), in its order."""
    changes: dict[str, str | None] = {}
    for action in root:
        for prop in action.iterfind(f"{DAV}prop/*"):
            changes.pop(prop.tag, None)
            changes[prop.tag] = xml.inner(prop) if action.tag == f"{DAV}set" else None
    return changes


def _failed(below: str, failures: Failures) -> Response:
    """Return the answer if a change failed: for the resource itself a status, for members of it one each."""
    if len(failures) == 1 and failures[0][0] == below:
        return refusal(None, failures[0][1])
    told = ""
    for path, error in failures:
        answer = refusal(None, error)
        told += xml.error_response(href((INCOMING, *path.split("/"))), status_of(error), (answer.text or "").strip())
    return _multistatus(told)


def _multistatus(responses: str) -> Response:
    return Response(status=207, text=xml.multistatus(responses), content_type="application/xml")
