"""Pages: a plain listing for each directory."""

from __future__ import annotations

import html
import json
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp.web import BaseRequest, Response

from bentofs.mount.serve.answers import sentence_answer
from bentofs.mount.serve.site import Site
from bentofs.mount.serve.targets import href
from bentofs.mount.view.nodes import File, Folder, Item
from bentofs.mount.view.tree import INCOMING

PAGE = ".page"  # the first name of all paths that are not of the tree
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


_HTML: Mapping[str, Any] = {"content_type": "text/html", "headers": _POLICY}


class Pages:
    """Answers with HTML."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def folder(self, request: BaseRequest, place: Sequence[str], folder: Folder) -> Response:  # noqa: ARG002
        """Answer GET of a directory of the tree; `place`: its names from the root on."""
        rows = await self._site.read(_rows_of, folder)
        return _page(place, rows)

    async def drop_box(self, request: BaseRequest, below: str) -> Response:  # noqa: ARG002
        """Answer GET of a directory in `incoming/`; `below`: its path there."""
        namespace = self._site.namespace
        assert namespace is not None
        await self._site.read(namespace.check_folder, below)
        items = await self._site.read(namespace.items, below)
        return _page((INCOMING, *below.split("/")) if below else (INCOMING,), [(item, None) for item in items])

    def outcomes(self, request: BaseRequest, status: int, outcomes: Sequence[Mapping[str, Any]]) -> Response:
        """Answer POST of a form: JSON, or a page for a browser."""
        wants_page = "text/html" in request.headers.get("Accept", "")
        if wants_page:
            lines = "".join(f"<li>{html.escape(_line(outcome))}</li>\n" for outcome in outcomes)
            return Response(status=status, text=_document("Uploads", f"<ul>{lines}</ul>"), **_HTML)
        text = json.dumps({"uploads": list(outcomes)}) + "\n"
        return Response(
            status=status, text=text, content_type="application/json", headers={"Cache-Control": "no-store"}
        )

    async def own(self, request: BaseRequest, names: Sequence[str]) -> Response:  # noqa: ARG002
        """Answer GET of a path below `/.page/`."""
        return sentence_answer(404, f"/{PAGE}/{'/'.join(names)} is not there")


def _rows_of(folder: Folder) -> list[tuple[Item, int | None]]:
    """Return the entries of a directory, each with its size if that is known."""
    rows: list[tuple[Item, int | None]] = []
    for item in folder.items():
        size = None
        if stat.S_ISREG(item.mode):
            node = folder.child(item.name)
            size = node.attributes().size if isinstance(node, File) and node.is_measured() else None
        rows.append((item, size))
    return rows


def _page(place: Sequence[str], rows: Sequence[tuple[Item, int | None]]) -> Response:
    title = html.escape("/" + "/".join(_shown(name) for name in place))
    lines = []
    if place:
        lines.append(f'<tr><td><a href="{href(place[:-1], is_folder=True)}">..</a></td><td></td></tr>')
    for item, size in rows:
        is_folder = stat.S_ISDIR(item.mode)
        link = href((*place, item.name), is_folder=is_folder)
        shown = html.escape(_shown(item.name)) + ("/" if is_folder else "")
        lines.append(
            f'<tr><td><a href="{html.escape(link)}">{shown}</a></td><td>{"" if size is None else size}</td></tr>'
        )
    return Response(text=_document(title, "<table>\n" + "\n".join(lines) + "\n</table>"), **_HTML)


def _document(title: str, body: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"></head>\n'
        f"<body><h1>{title}</h1>\n{body}</body></html>\n"
    )


def _line(outcome: Mapping[str, Any]) -> str:
    return f"{outcome['name']}: {outcome.get('error') or outcome.get('tag') or outcome['outcome']}"


def _shown(name: str) -> str:
    """Return a name as UTF-8 can show it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
