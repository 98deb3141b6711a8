"""Routes: the one place that gives each request its handler."""

from __future__ import annotations

import logging
import traceback
from contextlib import closing

from aiohttp.web import BaseRequest, StreamResponse

from bentofs.mount.serve.answers import refusal, sentence_answer
from bentofs.mount.serve.body import Body
from bentofs.mount.serve.connections import Activity
from bentofs.mount.serve.dav.handler import Dav
from bentofs.mount.serve.dav.locking import PreconditionError
from bentofs.mount.serve.dav.locks import LockedError
from bentofs.mount.serve.guards import Guards
from bentofs.mount.serve.media import OF_FILES
from bentofs.mount.serve.pages.pages import Pages
from bentofs.mount.serve.pages.rendering import PAGE
from bentofs.mount.serve.reading import Reading
from bentofs.mount.serve.receiving import Receiving
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import BadTargetError, Target, parse_target
from bentofs.mount.serve.uploaded import Uploaded
from bentofs.mount.view.live import LiveFile
from bentofs.mount.view.nodes import Folder
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import StoreError
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_READS = ("GET", "HEAD")
_DEEPEST = 100  # names of a path that is changed


class Routes:
    """The handlers of one server."""

    def __init__(self, site: Site, guards: Guards) -> None:
        self._site = site
        self._guards = guards
        self._dav = Dav(site)
        self._reading = Reading(site)
        self._pages = Pages(site, asks_password=guards.knows_users)
        namespace = site.namespace
        self._receiving = Receiving(site, namespace) if namespace is not None else None
        self._uploaded = Uploaded(site, namespace, self._pages) if namespace is not None else None

    async def answer(self, request: BaseRequest, activity: Activity) -> StreamResponse:
        """Answer a request."""
        with closing(Body(request, activity)) as body:
            return await self._answer_all(request, body, activity)

    async def _answer_all(self, request: BaseRequest, body: Body, activity: Activity) -> StreamResponse:
        try:
            response = await self._answer(request, body, activity)
        except (StoreError, OSError, BadTargetError) as error:
            if isinstance(error, ConnectionError):
                raise
            response = refusal(request, error)
            traceback.clear_frames(error.__traceback__)  # a refused upload keeps its error, and so a block of the body
        except LockedError as error:
            response = sentence_answer(423, str(error))
        except PreconditionError as error:
            response = sentence_answer(412, str(error))
        except Exception:
            log.exception("%s of %s failed unexpectedly", request.method, printable(_shown(request)))
            response = sentence_answer(500, "the server failed: its log says why")
        for name, value in OF_FILES.items():  # a page has its own policy
            response.headers.setdefault(name, value)
        body.end(response)
        if body.is_coming and not response.prepared:
            await body.answer_early(response)
        log.debug("%s %s: %d", request.method, printable(_shown(request)), response.status)
        return response

    async def _answer(self, request: BaseRequest, body: Body, activity: Activity) -> StreamResponse:
        target = parse_target(request.raw_path) if request.raw_path != "*" else Target((), True, None, "")
        refused = await self._guards.check(request, target)
        if refused is not None:
            return refused
        method = request.method
        if method in _READS:
            return await self._read(request, activity, target)
        below = self._site.below_incoming(target.names)
        if below is not None and len(target.names) > _DEEPEST:
            return sentence_answer(414, f"a path in {INCOMING}/ may have {_DEEPEST} names at most")
        if self._receiving is not None and below is not None:
            if method == "PUT":
                await self._dav.locking.check(request, target, below)
                return await self._receiving.put(request, body, target, below)
            if method == "POST":
                status, outcomes = await self._receiving.post(request, body, below)
                return await self._pages.outcomes(request, status, outcomes)
        if method == "OPTIONS":
            return self._dav.options(target)
        answer = await self._dav.answer(request, body, target)
        if answer is not None:
            return answer
        return sentence_answer(405, "this cannot be changed here", {"Allow": ", ".join(self._dav.allowed(target))})

    async def _read(self, request: BaseRequest, activity: Activity, target: Target) -> StreamResponse:
        names = target.names
        if names[:1] == (PAGE,):
            return await self._pages.own(request, activity, names[1:])
        below = self._site.below_incoming(names)
        if self._uploaded is not None and below is not None:
            return await self._uploaded.answer(request, activity, below)
        place, node = await self._site.read(self._site.find, names)
        if isinstance(node, Folder):
            return await self._pages.folder(request, place, node)
        if isinstance(node, LiveFile) and node.is_private and not self._guards.knows_users:
            return sentence_answer(403, f"{target.path} is for users who show a password: start with --auth FILE")
        if target.is_folder:
            return sentence_answer(404, f"{target.path} is a file: leave out the slash at the end")
        return await self._reading.answer(request, activity, place, node)


def _shown(request: BaseRequest) -> str:
    """Return the path of a request for the log. A query may hold secrets."""
    return request.raw_path.partition("?")[0]
