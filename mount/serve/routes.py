"""Routes: the one place that gives each request its handler."""

from __future__ import annotations

import logging

from aiohttp.web import BaseRequest, Response, StreamResponse

from bentofs.mount.serve.answers import refusal, sentence_answer
from bentofs.mount.serve.connections import Activity
from bentofs.mount.serve.guards import Guards
from bentofs.mount.serve.media import OF_FILES
from bentofs.mount.serve.pages.listing import PAGE, Pages
from bentofs.mount.serve.reading import Reading
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import BadTargetError, Target, parse_target
from bentofs.mount.view.live import LiveFile
from bentofs.mount.view.nodes import Folder
from bentofs.store.errors import StoreError
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_READS = ("GET", "HEAD")


class Routes:
    """The handlers of one server."""

    def __init__(self, site: Site, guards: Guards) -> None:
        self._site = site
        self._guards = guards
        self._reading = Reading(site)
        self._pages = Pages(site)

    async def answer(self, request: BaseRequest, activity: Activity) -> StreamResponse:
        """Answer a request."""
        try:
            response = await self._answer(request, activity)
        except (StoreError, OSError, BadTargetError) as error:
            if isinstance(error, ConnectionError):
                raise
            response = refusal(request, error)
        except Exception:
            log.exception("%s of %s failed unexpectedly", request.method, printable(_shown(request)))
            response = sentence_answer(500, "the server failed: its log says why")
        for name, value in OF_FILES.items():  # a page has its own policy
            response.headers.setdefault(name, value)
        log.debug("%s %s: %d", request.method, printable(_shown(request)), response.status)
        return response

    async def _answer(self, request: BaseRequest, activity: Activity) -> StreamResponse:
        target = parse_target(request.raw_path) if request.raw_path != "*" else Target((), True, None, "")
        refused = await self._guards.check(request, target)
        if refused is not None:
            return refused
        if request.method in _READS:
            return await self._read(request, activity, target)
        return self._not_allowed()

    async def _read(self, request: BaseRequest, activity: Activity, target: Target) -> StreamResponse:
        names = target.names
        if names[:1] == (PAGE,):
            return await self._pages.own(request, names[1:])
        below = self._site.below_incoming(names)
        if below is not None:
            return await self._pages.drop_box(request, below)
        place, node = await self._site.read(self._site.find, names)
        if isinstance(node, Folder):
            return await self._pages.folder(request, place, node)
        if isinstance(node, LiveFile) and node.is_private and not self._guards.knows_users:
            return sentence_answer(403, f"{target.path} is for users who show a password: start with --auth FILE")
        if target.is_folder:
            return sentence_answer(404, f"{target.path} is a file: leave out the slash at the end")
        return await self._reading.answer(request, activity, place, node)

    def _not_allowed(self) -> Response:
        return sentence_answer(405, "this cannot be changed here", {"Allow": ", ".join(_READS)})


def _shown(request: BaseRequest) -> str:
    """Return the path of a request for the log. A query may hold secrets."""
    return request.raw_path.partition("?")[0]
