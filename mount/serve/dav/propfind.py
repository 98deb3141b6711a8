"""Propfind: the properties of a resource and of its members."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from aiohttp.web import BaseRequest, Response, StreamResponse

from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.body import Body
from bentofs.mount.serve.dav import xml
from bentofs.mount.serve.dav.dead import DeadProperties
from bentofs.mount.serve.dav.entries import Entries, Entry
from bentofs.mount.serve.dav.locking import active_locks
from bentofs.mount.serve.dav.locks import Locks
from bentofs.mount.serve.dav.xml import DAV, Property
from bentofs.mount.serve.media import OF_FILES
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import BadTargetError, Target

_AT_ONCE = 200  # members that are looked at together
_SUPPORTED = "".join(
    f"<D:lockentry><D:lockscope><D:{scope}/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockentry>"
    for scope in ("exclusive", "shared")
)
_INFINITE = f'{xml.HEAD}<D:error xmlns:D="DAV:"><D:propfind-finite-depth/></D:error>\n'


class Propfind:
    """Answers PROPFIND."""

    def __init__(self, site: Site, entries: Entries, dead: DeadProperties, locks: Locks) -> None:
        self._site = site
        self._entries = entries
        self._dead = dead
        self._locks = locks

    async def answer(self, request: BaseRequest, body: Body, target: Target) -> StreamResponse:
        """Answer PROPFIND of any path.

        Raises:
            StoreError, OSError: there is no such resource, or it cannot be looked at.
            BadTargetError: the body is wrong.
        """
        root = await xml.read_xml(body)
        if root is not None and root.tag != f"{DAV}propfind":
            raise BadTargetError("PROPFIND needs a propfind as its body, or none")
        wanted = None if root is None else _wanted(root.find(f"{DAV}prop"))
        names_only = root is not None and root.find(f"{DAV}propname") is not None
        entry = await self._site.read(self._entries.entry, target.names)
        depth = request.headers.get("Depth", "infinity").strip().lower()
        if depth not in ("0", "1", "infinity"):
            raise BadTargetError("PROPFIND takes the depths 0 and 1")
        if entry.is_folder and depth == "infinity":
            text = "PROPFIND of a directory takes the depths 0 and 1"
            answer = sentence_answer(403, text)
            answer.text, answer.content_type = _INFINITE, "application/xml"
            return answer
        own = self._response(entry, wanted, names_only=names_only)
        members = await self._site.read(self._entries.members, target.names) if entry.is_folder and depth == "1" else []
        if not members:
            return Response(status=207, text=xml.multistatus(own), content_type="application/xml")
        headers = {**OF_FILES, "Content-Type": "application/xml; charset=utf-8", "Cache-Control": "no-store"}
        response = StreamResponse(status=207, headers=headers)
        first, *others = _groups(members)
        begun = own + await self._responses(target.names, first, wanted, names_only=names_only)
        await response.prepare(request)
        await response.write(f'{xml.HEAD}<D:multistatus xmlns:D="DAV:">\n{begun}'.encode())
        for group in others:
            await response.write((await self._responses(target.names, group, wanted, names_only=names_only)).encode())
        await response.write(b"</D:multistatus>\n")
        return response

    async def _responses(
        self, names: Sequence[str], members: Sequence[str], wanted: Sequence[str] | None, *, names_only: bool
    ) -> str:
        entries = await self._site.read(self._entries.entries, names, members)
        return "".join(self._response(entry, wanted, names_only=names_only) for entry in entries)

    def _response(self, entry: Entry, wanted: Sequence[str] | None, *, names_only: bool) -> str:
        properties = {prop.name: prop for prop in self._properties(entry)}
        if names_only:
            return xml.response(entry.href, [Property(name) for name in properties])
        if wanted is None:
            return xml.response(entry.href, properties.values())
        found = [properties[name] for name in wanted if name in properties]
        return xml.response(entry.href, found, [name for name in wanted if name not in properties])

    def _properties(self, entry: Entry) -> Iterator[Property]:
        yield from entry.properties()
        below = self._site.below_incoming(entry.names)
        if below is None:
            return
        yield Property(f"{DAV}supportedlock", _SUPPORTED)
        yield Property(f"{DAV}lockdiscovery", active_locks(self._locks.on(below)))
        for name, content in self._dead.of(below).items():
            yield Property(name, content)


def _wanted(prop: ElementTree.Element | None) -> list[str] | None:
    """Return the names that a `prop` asks for; None for all."""
    return None if prop is None else list(dict.fromkeys(child.tag for child in prop))


def _groups(members: Sequence[str]) -> list[Sequence[str]]:
    return [members[begin : begin + _AT_ONCE] for begin in range(0, len(members), _AT_ONCE)]
