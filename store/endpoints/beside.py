"""A name beside the target's, where a file appears while it is still written: a rename makes it whole."""

from __future__ import annotations

import os
import posixpath
import secrets


def beside(path: str) -> str:
    """A hidden name, used once, in the folder of `path`."""
    folder, name = posixpath.split(path)
    begin = os.fsencode(name)[:100].decode(errors="ignore")  # a name may take 255 bytes, whatever its characters take
    return posixpath.join(folder, f".{begin}.{secrets.token_hex(6)}.part")
