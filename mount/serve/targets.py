"""Targets: the path of a request, as names of the tree.

The raw path is split before its names are decoded, so `%2F` never separates and `%2e%2e` never leads up. Servers'
libraries decode first (`mount/SEMANTICS.md`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(r"https?://([^/?#]*)(.*)", re.DOTALL | re.IGNORECASE)
_FORBIDDEN = re.compile(rb"[\x00\r/]")
_SAFE = "-._~!$&'()*+,;=:@"  # in a segment (RFC 3986), beside letters and digits


class BadTargetError(Exception):
    """A request's target names nothing that a tree could have. The text is a sentence for the client."""


class Target(NamedTuple):
    """A request's target."""

    names: tuple[str, ...]  # from the root on
    is_folder: bool  # it ends in a slash
    host: str | None  # the authority of a target in absolute form
    query: str

    @property
    def path(self) -> str:
        """Return the path in the tree."""
        return "/" + "/".join(self.names)


def parse_target(raw: str) -> Target:
    """Parse the target of a request, or the URL of a Destination header.

    Raises:
        BadTargetError: it is malformed, or has a name that no file can have.
    """
    absolute = _ABSOLUTE.fullmatch(raw)
    host, rest = (absolute[1], absolute[2] or "/") if absolute else (None, raw)
    path, _, query = rest.partition("?")
    if "#" in rest:
        raise BadTargetError("the target of a request has a fragment: write # as %23")
    if not path.startswith("/"):
        raise BadTargetError("the path of a request must begin with a slash")
    parts = path[1:].split("/")
    is_folder = parts[-1] == ""
    if is_folder:
        parts.pop()
    return Target(tuple(_name(part) for part in parts), is_folder, host, query)


def href(names: Sequence[str], *, is_folder: bool = False) -> str:
    """Return the path of a URL for names of the tree."""
    path = "/" + "/".join(quote_from_bytes(os.fsencode(name), _SAFE) for name in names)
    return f"{path}/" if is_folder and names else path


def _name(part: str) -> str:
    if _ESCAPE.search(part):
        raise BadTargetError("the path of a request has a % that begins no escape: write it as %25")
    try:
        decoded = unquote_to_bytes(part.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise BadTargetError("the path of a request is not UTF-8") from None
    return checked_name(decoded)


def checked_name(decoded: bytes) -> str:
    """Return a decoded name, if a file can have it.

    Raises:
        BadTargetError
    """
    if decoded in (b"", b".", b".."):
        raise BadTargetError("a name is empty, or is `.` or `..`")
    if _FORBIDDEN.search(decoded):
        raise BadTargetError("a name has a slash, a carriage return or a NUL in it")
    return os.fsdecode(decoded)
