"""Compression: which files of a model are compressed in its archives. The rule here looks at sizes only; samples decide
further (`store.formats.write.deflate.judge`)."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from bentofs.store.errors import BadLocationError
from bentofs.store.formats.write.deflate import SMALL
from bentofs.store.formats.write.members import Packing
from bentofs.store.formats.write.registry import BENTOMODEL, Format

MAX_FILE = 256 << 20  # bytes; larger files are stored by AUTO
MAX_MODEL = 1 << 30  # bytes of files that AUTO compresses in one model
_FILE = 16 << 10  # bytes that a file counts beside its content: opening it takes as long as compressing this many
_TINY = 1 << 10  # bytes of a file that is always compressed in a tar: its header alone would take half of that

_QUICK = 16 << 10  # bytes: a file below it takes longer to read than to compress
_LITTLE = 8 << 20  # bytes of small files in a model that are measured for all formats at once


class Compression(enum.Enum):
    """`--compression`."""

    AUTO = "auto"  # files that are worth it, unless `stat` would wait long for the archive's size
    ALWAYS = "always"  # everything, `.bentomodel` included
    NEVER = "never"  # all sizes are arithmetic

    @classmethod
    def named(cls, name: str) -> Compression:
        """Return the compression with this name.

        Raises:
            BadLocationError: there is none.
        """
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(each.value for each in cls)
            raise BadLocationError(f"{name!r} is not a compression: choose one of {known}") from None

    @classmethod
    def default(cls, *, has_page_cache: bool) -> Compression:
        """Return the default for a store. It is NEVER without a page cache, where sizes would cost fetching all
        files (`Storage.has_page_cache`)."""
        return cls.AUTO if has_page_cache else cls.NEVER


def is_compressed(kind: Format, compression: Compression) -> bool:
    """Tell whether archives of this kind have sizes that must be measured."""
    if compression is Compression.NEVER or kind.compress is None:
        return False
    return kind is not BENTOMODEL or compression is Compression.ALWAYS


def packings(sizes: Sequence[int], compression: Compression) -> list[Packing]:
    """Return how each of a model's files is packed, as far as their sizes decide it.

    AUTO takes the smallest files first (files of equal size in the order of the archive) until `MAX_MODEL` is reached.
    A slow lookup blocks its directory for everybody, so it must not have to compress more. Tiny files are compressed in
    a tar in any case: without that, a tar of very many would be ten times as large.
    """
    found = [Packing.SMALL if size < SMALL else Packing.LARGE for size in sizes]
    if compression is Compression.ALWAYS:
        return found
    room = MAX_MODEL
    if sum(sizes) + len(sizes) * _FILE <= room and max(sizes, default=0) <= MAX_FILE:  # the usual case
        return found
    for number in sorted(range(len(sizes)), key=sizes.__getitem__):
        size = sizes[number]
        room -= size + _FILE
        if size > MAX_FILE or room < 0:
            found[number] = Packing.TINY if size <= _TINY else Packing.STORED
    return found


def is_cheap_at_once(sizes: Sequence[int]) -> bool:
    """Tell whether measuring small files for a second format takes less time than reading them once more would.
    `sizes`: of all files."""
    small = [size for size in sizes if 0 < size < SMALL]
    total = sum(small)
    return total < _LITTLE or total < len(small) * _QUICK
