"""Reading of a header block of a tar archive: v7, ustar (POSIX.1-1988), GNU.

Reads only the fields that a model needs: name, type, size, mode, link. Follows GNU tar and bsdtar where they agree.
Where they disagree, the block counts as damaged.

Threading: functions without state.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bentofs.store.errors import DamagedArchiveError

BLOCK = 512  # bytes
ZEROS = bytes(BLOCK)  # the block that ends an archive
MAX_SIZE = 1 << 62  # bytes: no file is longer, even if a header says so
_USTAR, _GNU = b"ustar\0", b"ustar  \0"  # the magic at byte 257
_OCTAL = re.compile(rb"[ \t]*(-?[0-7]*)[ \t]*")
_CHECKED = ((100, 108), (108, 116), (116, 124), (136, 148))  # mode, owner, group, mtime: numbers, even if unused


class Header(NamedTuple):
    """A header."""

    type: bytes  # one byte
    name: bytes  # with a ustar header's prefix
    link: bytes
    size: int  # bytes of content that follow, if the type has content
    mode: int
    is_gnu: bool
    block: bytes  # all of it


def read_header(block: bytes) -> Header:
    """Read a block that is not all zeros.

    Raises:
        DamagedArchiveError: the checksum is wrong, or a numeric field holds no number.
    """
    checksum = read_number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    # Some old writers added up signed bytes.
    if checksum != unsigned and checksum != unsigned - 256 * sum(byte >= 128 for byte in block[:148] + block[156:]):
        raise DamagedArchiveError.damaged("the checksum of a tar header is wrong")
    mode, *_ = (read_number(block[start:end]) for start, end in _CHECKED)
    magic = block[257:265]
    return Header(
        type=block[156:157],
        name=_name(block, magic),
        link=text(block[157:257]),
        size=read_size(block[124:136]),
        mode=mode,
        is_gnu=magic == _GNU,
        block=block,
    )


def is_header(block: bytes) -> bool:
    """Tell whether a tar archive can begin with this block."""
    try:
        read_header(block)
    except DamagedArchiveError:
        return False
    return len(block) == BLOCK


def read_number(field: bytes) -> int:
    """Read a field as octal digits, or as base 256 (GNU tar, star). An empty field is 0.

    Raises:
        DamagedArchiveError: the field holds something else.
    """
    if field[:1] in (b"\x80", b"\xff"):
        number = int.from_bytes(field[1:], "big")
        return number if field[0] == 0x80 else number - (1 << 8 * (len(field) - 1))
    digits = field.partition(b"\0")[0]
    found = _OCTAL.fullmatch(digits)
    # After one zero at the start, GNU tar reads on and bsdtar does not.
    if found is None or (not digits and field[1:2].strip(b"\0")) or found[1] == b"-":
        raise DamagedArchiveError.damaged("a field of a tar header holds no number")
    return int(found[1] or b"0", 8)


def read_size(field: bytes) -> int:
    """Read a field that holds a size in bytes or an offset.

    Raises:
        DamagedArchiveError: it holds no number, or a size that no file can have.
    """
    size = read_number(field)
    if not 0 <= size <= MAX_SIZE:
        raise DamagedArchiveError.damaged("a tar header holds a size that no file can have")
    return size


def text(field: bytes) -> bytes:
    """Return a field up to its first zero."""
    return field.partition(b"\0")[0]


def _name(block: bytes, magic: bytes) -> bytes:
    name = text(block[:100])
    prefix = text(block[345:500])
    if not prefix or magic == _GNU or not magic.startswith(b"ustar"):
        return name  # GNU tar keeps times, an offset and a sparse map there; v7 has no prefix
    if not magic.startswith(_USTAR):
        raise DamagedArchiveError.damaged(
            "a tar header has a prefix, and is neither of the ustar format nor of GNU tar's"
        )
    return prefix + b"/" + name
