"""Locking: LOCK and UNLOCK, and the checks of locks and of the header If for all that changes `incoming/`."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp.web import BaseRequest, Response

from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.body import Body
from bentofs.mount.serve.dav import xml
from bentofs.mount.serve.dav.entries import Entries
from bentofs.mount.serve.dav.locks import (
    IfList,
    Lock,
    LockedError,
    Locks,
    TooManyLocksError,
    parse_if,
    tokens_of,
    wanted_seconds,
)
from bentofs.mount.serve.dav.xml import DAV, Property
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import BadTargetError, Target, href, parse_target
from bentofs.mount.serve.uploading import Uploads
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import StoreError

_MOST_OWNER = 4096  # characters


class PreconditionError(Exception):
    """The header If of a request does not hold."""


class Locking:
    """The locks of one server, and what they forbid."""

    def __init__(self, site: Site, entries: Entries) -> None:
        self._site = site
        self._entries = entries
        self.locks = Locks()
        self._uploads = Uploads(site, site.namespace) if site.namespace is not None else None

    async def answer(self, request: BaseRequest, body: Body, target: Target, below: str) -> Response:
        """Answer LOCK or UNLOCK of a path in `incoming/`.

        Raises:
            LockedError, PreconditionError, BadTargetError
        """
        if request.method == "UNLOCK":
            token = request.headers.get("Lock-Token", "").strip().removeprefix("<").removesuffix(">")
            lock = self.locks.find(token, below)
            if lock is None:
                return sentence_answer(409, "this is not locked by this token")
            self.locks.release(lock)
            return Response(status=204)
        root = await xml.read_xml(body)
        seconds = wanted_seconds(request.headers.get("Timeout"))
        if root is None:
            return await self._refresh(request, target, below, seconds)
        if root.tag != f"{DAV}lockinfo" or root.find(f"{DAV}locktype/{DAV}write") is None:
            raise BadTargetError("LOCK needs a lockinfo of a write lock as its body")
        await self._check_condition(request, target, below)
        depth = request.headers.get("Depth", "infinity").strip().lower()
        if depth not in ("0", "infinity"):
            raise BadTargetError("LOCK takes the depths 0 and infinity")
        owner = root.find(f"{DAV}owner")
        told = "" if owner is None else xml.inner(owner)[:_MOST_OWNER]
        is_exclusive = root.find(f"{DAV}lockscope/{DAV}shared") is None
        lock = Lock(below, depth == "infinity", is_exclusive, told, seconds)
        try:
            self.locks.take(lock)
        except TooManyLocksError:
            return sentence_answer(507, "too many locks are held")
        try:
            is_new = await self._make_empty(below)
        except BaseException:
            self.locks.release(lock)
            raise
        headers = {"Lock-Token": f"<{lock.token}>"}
        return _answer(201 if is_new else 200, [lock], headers)

    async def check(
        self,
        request: BaseRequest,
        target: Target,
        below: str,
        *,
        changes_parent: bool = False,
        with_members: bool = False,
    ) -> None:
        """Check that a request may change a path. `changes_parent`: it adds or removes the name; `with_members`: it
        changes all below as well.

        Raises:
            LockedError: it does not show the token of a lock.
            PreconditionError: its header If does not hold.
        """
        lists = await self._check_condition(request, target, below)
        tokens = tokens_of(lists)
        self.locks.check(below, tokens, with_members=with_members)
        if changes_parent and below:
            parent = below.rpartition("/")[0]
            if any(lock.path == parent and lock.token not in tokens for lock in self.locks.on(parent)):
                raise LockedError("another client has locked the directory")

    async def _refresh(self, request: BaseRequest, target: Target, below: str, seconds: float) -> Response:
        lists = await self._check_condition(request, target, below)
        found = [lock for token in tokens_of(lists) if (lock := self.locks.find(token, below)) is not None]
        if not found:
            return sentence_answer(412, "no lock of this token is here")
        for lock in found:
            lock.refresh(seconds)
        return _answer(200, found, {})

    async def _make_empty(self, below: str) -> bool:
        """Make an empty file for a lock on a name that is free. Return True if that was so."""
        try:
            await self._site.read(self._entries.entry, (INCOMING, *below.split("/")) if below else (INCOMING,))
        except (StoreError, NotADirectoryError):
            if self._uploads is None:
                raise
            return await self._uploads.make_empty(below)
        return False

    async def _check_condition(self, request: BaseRequest, target: Target, below: str) -> Sequence[IfList] | None:
        try:
            lists = parse_if(request.headers.get("If"))
        except ValueError as error:
            raise BadTargetError(str(error)) from None
        if lists is not None and not any([await self._holds(each, target, below) for each in lists]):
            raise PreconditionError("the header If does not hold")
        return lists

    async def _holds(self, conditions: IfList, target: Target, below: str) -> bool:
        names: Sequence[str] = target.names
        if conditions.resource is not None:
            names = parse_target(conditions.resource).names
            inside = self._site.below_incoming(names)
            if inside is None:
                return False
            below = inside
        for condition in conditions.conditions:
            if condition.token is not None:
                holds = self.locks.find(condition.token, below) is not None
            else:
                holds = condition.etag == await self._etag(names)
            if holds == condition.negated:
                return False
        return True

    async def _etag(self, names: Sequence[str]) -> str | None:
        try:
            return (await self._site.read(self._entries.entry, names)).etag
        except (StoreError, OSError):
            return None


def active_locks(locks: Sequence[Lock]) -> str:
    """Return locks as XML."""
    return "".join(map(_active, locks))


def _active(lock: Lock) -> str:
    root = href((INCOMING, *lock.path.split("/"))) if lock.path else href((INCOMING,))
    scope = "exclusive" if lock.is_exclusive else "shared"
    owner = f"<D:owner>{lock.owner}</D:owner>" if lock.owner else ""
    return (
        f"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope>"
        f"<D:depth>{'infinity' if lock.is_deep else '0'}</D:depth>{owner}"
        f"<D:timeout>Second-{lock.seconds:.0f}</D:timeout><D:locktoken><D:href>{lock.token}</D:href></D:locktoken>"
        f"<D:lockroot><D:href>{xml.text(root)}</D:href></D:lockroot></D:activelock>"
    )


def _answer(status: int, locks: Sequence[Lock], headers: dict[str, str]) -> Response:
    discovery = xml.element(Property(f"{DAV}lockdiscovery", active_locks(locks)))
    text = f'{xml.HEAD}<D:prop xmlns:D="DAV:">{discovery}</D:prop>\n'
    return Response(status=status, text=text, content_type="application/xml", headers=headers)
