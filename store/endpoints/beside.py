"""A name beside the target's, for servers where a file appears while it is still written: a rename makes it whole."""

from __future__ import annotations

import posixpath
import secrets


def beside(path: str) -> str:
    """A hidden name, used once, in the folder of `path`."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.part")
