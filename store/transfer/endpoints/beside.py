"""A name beside the target's. A file has it while it is being written; a rename then shows the whole file at once."""

from __future__ import annotations

import posixpath
import secrets

_KEPT = 50  # characters of a name, of up to four bytes each; file systems take 255 bytes


def beside(path: str, writer: str = "") -> str:
    """Return a hidden name in the directory of `path`. It is used only once. `writer`: says in the name who writes."""
    folder, name = posixpath.split(path)
    return posixpath.join(folder, f".{name[:_KEPT]}.{writer}{secrets.token_hex(6)}.part")
