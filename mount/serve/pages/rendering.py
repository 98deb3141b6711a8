"""Rendering: makes pages from templates. Everything that a template is given is escaped.

Threading: any thread.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from aiohttp.web import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bentofs.mount.serve.targets import href
from bentofs.store.util.display import printable

PAGE = ".page"  # the first name of all paths that are not of the tree
_HERE = Path(__file__).parent
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_REFERRER = "same-origin"  # with "no-referrer", browsers send a form with `Origin: null`: the guards refuse that
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_EVER = "private, max-age=31536000, immutable"
_UNITS = ("kB", "MB", "GB", "TB", "PB")


class Assets:
    """The styles, scripts and pictures of the pages, read once. Their URLs change with their content."""

    def __init__(self) -> None:
        self._found = {path.name: path.read_bytes() for path in (_HERE / "assets").iterdir() if path.suffix in _KINDS}
        self._versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in self._found.items()}

    def url(self, name: str) -> str:
        """Return the URL of an asset."""
        return f"/{PAGE}/assets/{self._versions[name]}/{name}"

    def answer(self, version: str, name: str) -> Response | None:
        """Return the answer for an asset; None if there is none of this version."""
        if self._versions.get(name) != version:
            return None
        kind = _KINDS[Path(name).suffix]
        return Response(
            body=self._found[name], content_type=kind, charset="utf-8", headers={"Cache-Control": _FOR_EVER}
        )


class Renderer:
    """Makes pages. `shared`: values that all templates get."""

    def __init__(self, assets: Assets, **shared: object) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            finalize=_encodable,
        )
        self._environment.globals.update(shared, asset=assets.url, href=href, view=view_href, query=query_text)
        self._environment.filters.update(size=size_text, count=count_text, time=time_text, shown=printable)

    def html(self, template: str, **values: object) -> str:
        """Return a template with its values."""
        return self._environment.get_template(template).render(values)


def html_answer(text: str, status: int = 200) -> Response:
    """Return HTML as an answer."""
    headers = {"Content-Security-Policy": _POLICY, "Referrer-Policy": _REFERRER, "Cache-Control": "no-cache"}
    return Response(status=status, text=text, content_type="text/html", headers=headers)


def view_href(names: Sequence[str]) -> str:
    """Return the URL of the page that shows a file of the tree."""
    return href((PAGE, "view", *names))


def query_text(*pairs: tuple[str, object]) -> str:
    """Return the query of a URL. Leave out what is empty."""
    given = [(name, _encodable(value)) for name, value in pairs if value not in ("", None)]
    return f"?{urlencode(given)}" if given else ""


def size_text(size: int | None) -> str:
    """Return a number of bytes for people."""
    if size is None:
        return "?"
    if size < 1000:
        return f"{size} B"
    amount, unit = float(size), "B"
    for larger in _UNITS:
        if amount < 999.95:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.1f} {unit}"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Return a number of things."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def time_text(time: datetime.datetime, *, seconds: bool = False) -> str:
    """Return a time in UTC for people."""
    utc = time.astimezone(datetime.timezone.utc) if time.year > 1 else time
    return f"{utc:%Y-%m-%d %H:%M:%S}" if seconds else f"{utc:%Y-%m-%d %H:%M}"


def _encodable(value: object) -> object:
    """Return a value of a template as UTF-8 can hold it. The result of a macro holds no other."""
    if isinstance(value, Markup):
        return value
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value
