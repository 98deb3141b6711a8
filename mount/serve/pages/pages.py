"""Pages: the answer for each page, and for each path below `/.page/`."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp.web import BaseRequest, Response, StreamResponse

from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.connections import Activity
from bentofs.mount.serve.pages.feed import Feed
from bentofs.mount.serve.pages.listing import PER_PAGE, Line, folder_lines, line_of
from bentofs.mount.serve.pages.model_page import model_view
from bentofs.mount.serve.pages.overview import Overview, Search, card_of
from bentofs.mount.serve.pages.rendering import PAGE, Assets, Renderer, html_answer
from bentofs.mount.serve.pages.viewing import view_of
from bentofs.mount.serve.site import Site
from bentofs.mount.view.nodes import File, Folder
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import NotFoundError
from bentofs.store.model.tag import Tag
from bentofs.store.transfer.receipt import Receipt
from bentofs.store.util.display import printable

_RECENT, _RECORDED = 5, 100  # imports that the list of models, and the record, show
_VIEWS_AT_ONCE = 4  # files that are looked into
_MOST_PAIRS = 50  # of a query


class Pages:
    """The pages of one server."""

    def __init__(self, site: Site, *, asks_password: bool) -> None:
        """`asks_password`: visitors show a password or a token."""
        self._site = site
        self._asks_password = asks_password
        self._assets = Assets()
        root = site.tree.lookup("/")
        assert isinstance(root, Folder)
        self._renderer = Renderer(
            self._assets,
            location=printable(site.tree.store.storage.location),
            takes_uploads=site.namespace is not None,
            top=[item.name for item in root.items() if stat.S_ISDIR(item.mode)],
        )
        self._overview = Overview(site.tree.store)
        self._viewing = asyncio.Semaphore(_VIEWS_AT_ONCE)
        self._feed: Feed | None = None
        if site.record is not None:
            self._feed = Feed(site, site.record, self._import_html, self._overview.expire)

    async def folder(self, request: BaseRequest, place: Sequence[str], folder: Folder) -> Response:
        """Answer GET of a directory of the tree; `place`: its names from the root on."""
        pairs = _pairs(request)
        if not place:
            return await self._home(pairs)
        if place[0] == "models" and len(place) == 3:
            return await self._model(request, Tag(place[1], place[2]))
        if place[0] == "models" and len(place) == 2:
            return await self._versions(place[1])
        begin = (Search.of(pairs).page - 1) * PER_PAGE
        lines, count = await self._site.read(_part_of, folder, place, begin)
        return await self._listing(place, lines, count, begin)

    async def drop_box(self, request: BaseRequest, below: str) -> Response:
        """Answer GET of a directory in `incoming/`; `below`: its path there."""
        namespace = self._site.namespace
        assert namespace is not None
        await self._site.read(namespace.check_folder, below)
        items = await self._site.read(namespace.items, below)
        place = (INCOMING, *below.split("/")) if below else (INCOMING,)
        begin = (Search.of(_pairs(request)).page - 1) * PER_PAGE
        lines = [line_of(item, place) for item in items[begin : begin + PER_PAGE]]
        return await self._listing(place, lines, len(items), begin)

    async def outcomes(self, request: BaseRequest, status: int, outcomes: Sequence[Mapping[str, Any]]) -> Response:
        """Answer POST of a form: JSON, or a page for a browser."""
        if "text/html" in request.headers.get("Accept", ""):
            text = await self._site.read(self._part, "uploads.html", {"outcomes": outcomes})
            return html_answer(text, status)
        return Response(
            status=status,
            text=json.dumps({"uploads": list(outcomes)}) + "\n",
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def own(self, request: BaseRequest, activity: Activity, names: Sequence[str]) -> StreamResponse:
        """Answer GET of a path below `/.page/`."""
        found: StreamResponse | None = None
        if len(names) == 3 and names[0] == "assets":
            found = self._assets.answer(names[1], names[2])
        elif list(names) == ["models"]:
            result = await self._site.read(self._overview.find, Search.of(_pairs(request)))
            found = html_answer(await self._site.read(self._part, "results.html", {"found": result}))
        elif list(names) == ["imports"] and self._feed is not None:
            found = await self._record()
        elif list(names) == ["events"] and self._feed is not None:
            found = await self._feed.answer(request, activity, _since(request))
        elif names[:2] == ("view", "models"):
            found = await self._view(names[1:])
        return found or sentence_answer(404, f"/{PAGE}/{'/'.join(names)} is not there")

    async def _home(self, pairs: Sequence[tuple[str, str]]) -> Response:
        found = await self._site.read(self._overview.find, Search.of(pairs))
        receipts = await self._receipts(_RECENT)
        return await self._page("home.html", found=found, receipts=receipts, change=_newest(receipts))

    async def _versions(self, name: str) -> Response:
        store = self._site.tree.store

        def rows() -> object:
            cards = [card_of(store.info(Tag(name, version))) for version in store.versions(name)]
            cards.sort(key=lambda card: (-card.created.timestamp(), card.tag.version))
            return self._overview.rows(cards)

        return await self._page("versions.html", name=name, rows=await self._site.read(rows))

    async def _model(self, request: BaseRequest, tag: Tag) -> Response:
        origin = _origin(request)

        def look() -> object:
            return model_view(self._site.tree, tag, origin, asks_password=self._asks_password)

        return await self._page("model.html", tag=tag, origin=origin, shown=await self._site.read(look))

    async def _view(self, names: Sequence[str]) -> Response:
        place, node = await self._site.read(self._site.find, names)
        if not isinstance(node, File) or place[3:4] != ("files",):
            raise NotFoundError(f"{'/'.join(names)} is no file of a model")
        async with self._viewing:
            file, view = await self._site.read(view_of, place[-1], node)
        size = file.attributes().size
        return await self._page("view.html", place=place, tag=Tag(place[1], place[2]), view_of=view, bytes=size)

    async def _record(self) -> Response:
        receipts = await self._receipts(_RECORDED)
        return await self._page("imports.html", receipts=receipts, change=_newest(receipts))

    async def _receipts(self, most: int) -> list[Receipt]:
        record = self._site.record
        return [] if record is None else await self._site.read(record.recent, most)

    async def _listing(self, place: Sequence[str], lines: Sequence[Line], count: int, begin: int) -> Response:
        if begin and not lines:
            raise NotFoundError(f"/{'/'.join(place)} has only {count} entries")
        page, pages = begin // PER_PAGE + 1, max(1, -(-count // PER_PAGE))
        return await self._page("listing.html", place=place, lines=lines, count=count, page=page, pages=pages)

    async def _page(self, template: str, **values: object) -> Response:
        return html_answer(await self._site.read(self._part, template, values))

    def _part(self, template: str, values: Mapping[str, object]) -> str:
        return self._renderer.html(template, **values)

    def _import_html(self, receipt: Receipt) -> str:
        return self._renderer.html("import.html", receipt=receipt)


def _part_of(folder: Folder, place: Sequence[str], begin: int) -> tuple[list[Line], int]:
    return folder_lines(folder, place, begin=begin)


def _pairs(request: BaseRequest) -> list[tuple[str, str]]:
    """Return the query of a request. One that is too long counts for nothing."""
    try:
        return parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True, max_num_fields=_MOST_PAIRS)
    except ValueError:
        return []


def _origin(request: BaseRequest) -> str:
    """Return the URL of this server, as its visitor writes it. The guards know the name in it."""
    return f"{'https' if request.secure else 'http'}://{urlsplit(f'//{request.host}').netloc.lower()}"


def _since(request: BaseRequest) -> int:
    """Return the change that a page knows already. A browser that connects again tells the last one that came."""
    text = request.headers.get("Last-Event-ID") or dict(_pairs(request)).get("since", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _newest(receipts: Sequence[Receipt]) -> int:
    return max((receipt.change for receipt in receipts), default=0)
