"""Tell URLs from paths, and remove their secrets. It loads little: a process uses it to hide the secrets in its command
line, which all users can read until then."""

from __future__ import annotations

import re

from bentofs.store.util.display import printable

_CREDENTIALS = re.compile(r"(?<=://)[^/?]*@|(?<=://)[^/?#@:]*:.*@")  # the latter: an unquoted password
_QUERY = re.compile(r"\?.*", re.DOTALL)


def is_url(text: str) -> bool:
    """True if the text is treated as a URL, not as a path."""
    return "://" in text


def without_secrets(url: str) -> str:
    """Return a URL without user, password and parameters, safe to show."""
    return printable(_QUERY.sub("", _CREDENTIALS.sub("", url)))
