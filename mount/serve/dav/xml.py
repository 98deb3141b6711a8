"""Read and write the XML of WebDAV. Bodies of clients are bounded, and have no document type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from bentofs.mount.serve.body import Body
from bentofs.mount.serve.targets import BadTargetError

DAV = "{DAV:}"
HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
_MOST_BODY = 256 << 10  # bytes
_MOST_ELEMENTS = 2000


class Property(NamedTuple):
    """A property of a resource."""

    name: str  # as ElementTree has it: {namespace}name
    content: str = ""  # XML


async def read_xml(body: Body) -> ElementTree.Element | None:
    """Return the root of a request's body; None if it has no body.

    Raises:
        BadTargetError: it is no XML that a client of WebDAV sends.
    """
    content = await body.whole(_MOST_BODY)
    if content is None:
        raise BadTargetError(f"the XML of a request may have {_MOST_BODY} bytes at most")
    if not content.strip():
        return None
    try:
        root: ElementTree.Element = fromstring(content, forbid_dtd=True)
    except (ElementTree.ParseError, DefusedXmlException, ValueError, LookupError):
        raise BadTargetError("the body of the request is no XML that can be read") from None
    if sum(1 for _ in root.iter()) > _MOST_ELEMENTS:
        raise BadTargetError(f"the XML of a request may have {_MOST_ELEMENTS} elements at most")
    return root


def element(prop: Property) -> str:
    """Return a property as XML."""
    namespace, _, name = prop.name.removeprefix("{").rpartition("}")
    if namespace == "DAV:":
        start, end = f"D:{name}", f"D:{name}"
    elif namespace:
        start, end = f'x:{name} xmlns:x="{escape(namespace, {chr(34): "&quot;"})}"', f"x:{name}"
    else:
        start, end = f'{name} xmlns=""', name
    return f"<{start}>{prop.content}</{end}>" if prop.content else f"<{start}/>"


def response(href: str, found: Iterable[Property], missing: Iterable[str] = (), *, status: int = 404) -> str:
    """Return a `response` with the properties that were found, and the names of the others with their status."""
    parts = []
    there = "".join(map(element, found))
    rest = "".join(element(Property(name)) for name in missing)
    if there or not rest:
        parts.append(f"<D:propstat><D:prop>{there}</D:prop>{_status(200)}</D:propstat>")
    if rest:
        parts.append(f"<D:propstat><D:prop>{rest}</D:prop>{_status(status)}</D:propstat>")
    return f"<D:response><D:href>{escape(href)}</D:href>{''.join(parts)}</D:response>\n"


def error_response(href: str, status: int, sentence: str) -> str:
    """Return a `response` that says why a member could not be changed."""
    told = f"<D:responsedescription>{text(sentence)}</D:responsedescription>"
    return f"<D:response><D:href>{escape(href)}</D:href>{_status(status)}{told}</D:response>\n"


def multistatus(responses: str) -> str:
    """Return a whole document."""
    return f'{HEAD}<D:multistatus xmlns:D="DAV:">\n{responses}</D:multistatus>\n'


def text(content: str) -> str:
    """Return a text as XML. Characters that XML lacks become question marks."""
    shown = content.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return escape("".join(char if char >= " " and char not in "\ufffe\uffff" else "?" for char in shown))


def inner(node: ElementTree.Element) -> str:
    """Return the content of an element as XML."""
    return escape(node.text or "") + "".join(ElementTree.tostring(child, encoding="unicode") for child in node)


_PHRASES = {200: "OK", 403: "Forbidden", 404: "Not Found", 409: "Conflict", 423: "Locked", 424: "Failed Dependency"}


def _status(status: int) -> str:
    return f"<D:status>HTTP/1.1 {status} {_PHRASES.get(status, 'Error')}</D:status>"
