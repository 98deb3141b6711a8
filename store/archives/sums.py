"""Files of the SHA-256s of a model's archives, in the format of coreutils' sha256sum.

Their length is known before any archive is read. The sums are computed at the first read.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from bentofs.store.archives.archives import Archives
from bentofs.store.formats.pieces import Generated, Piece
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag

_DIGEST = 64  # hexadecimal digits


def sums_length(tag: Tag, formats: Sequence[Format]) -> int:
    """Return the length in bytes of the file with the sums of these archives."""
    return sum(_DIGEST + len(f"  {_name(tag, kind)}\n") for kind in formats)


def open_sums(archives: Archives, model: Model, formats: Sequence[Format]) -> Piece:
    """Return the file with the sums of these archives of a model."""

    def lines() -> bytes:
        found = zip(archives.sha256s(model, formats), formats, strict=True)
        return "".join(f"{sha256}  {_name(model.tag, kind)}\n" for sha256, kind in found).encode()

    return Generated(sums_length(model.tag, formats), functools.cache(lines))


def _name(tag: Tag, kind: Format) -> str:
    return tag.stem + kind.suffix
