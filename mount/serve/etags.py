"""Strong entity tags: equal ones mean equal bytes."""

from __future__ import annotations

import hashlib

from bentofs.mount.view.nodes import Attributes, File

_DIGITS = 32


def etag_of(file: File) -> str | None:
    """Return the entity tag of a file of the tree: of its model's generation and its format. None if its bytes change
    at any time."""
    name = file.bytes_name()
    return None if name is None else f'"{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}"'


def etag_of_upload(attributes: Attributes) -> str:
    """Return the entity tag of a file in `incoming/`."""
    name = f"{attributes.inode}/{attributes.size}/{attributes.mtime_ns}/{attributes.ctime_ns}"
    return f'"{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS]}"'
