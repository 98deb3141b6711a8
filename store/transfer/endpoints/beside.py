"""A name beside the target's, where a file appears while it is still written: a rename makes it whole."""

from __future__ import annotations

import posixpath
import secrets

_KEPT = 50  # characters, of up to four bytes, of a name, of which file systems take 255 bytes


def beside(path: str) -> str:
    """A hidden name, used once, in the folder of `path`."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name[:_KEPT]}.{secrets.token_hex(6)}.part")
