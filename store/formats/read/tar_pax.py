"""pax extended headers (POSIX.1-2001): records that replace fields of the next header, and GNU tar's own records.

A record is `LENGTH KEYWORD=VALUE` and a newline. The length counts the whole record. Solaris writes the same under type
'X'.

Threading: functions without state.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bentofs.store.errors import DamagedArchiveError, TooBigError, UnsafeMemberError
from bentofs.store.formats.read.tar_header import MAX_SIZE, text
from bentofs.store.formats.read.tar_sparse import MAX_REGIONS

MAX_RECORDS = 256 << 10  # bytes of a header's records, without the large ones
MAX_CONTENT = 4 << 20  # bytes of one extended header
_MAX_DIGITS = 20  # of a number: more digits than any size has
_LONG_NUMBER = re.compile(rb"\d{300}")  # no writer has it, and some readers take very long for it
_MAP = (b"GNU.sparse.map", b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_LARGE = (*_MAP, b"GNU.dumpdir")  # values that may fill a header: maps and directory listings
_OF_ONE_MEMBER = (b"path", b"linkpath", b"size")  # not allowed in a global header


@dataclass
class Records:
    """The content of one extended header, for the member after it. A field is None if the header does not set it."""

    path: bytes | None = None
    link: bytes | None = None
    size: int | None = None  # bytes
    is_folder: bool = False
    sparse_name: bytes | None = None
    sparse_size: int | None = None  # bytes of the whole file
    sparse_version: tuple[int, int] | None = None
    sparse_map: list[int] = field(default_factory=list)  # offset and length of each region, alternating


def read_records(content: bytes) -> Records:
    """Read the content of an extended header.

    Raises:
        DamagedArchiveError: it does not consist of records, or a record's value does not fit its keyword.
        TooBigError: it holds more than a member needs.
    """
    records = Records()
    other, major, minor = 0, None, None
    for keyword, value in _split(content):
        if keyword not in _LARGE:
            other += len(keyword) + len(value)
            if other > MAX_RECORDS:
                raise TooBigError("the archive holds a tar header that is too large")
        if keyword == b"path":
            records.path = value
        elif keyword == b"linkpath":
            records.link = value
        elif keyword == b"size":
            records.size = _number(value)
        elif keyword == b"GNU.dumpdir":
            records.is_folder = True
        elif keyword == b"GNU.sparse.major":
            major = _number(value)
        elif keyword == b"GNU.sparse.minor":
            minor = _number(value)
        elif keyword == b"GNU.sparse.name":
            records.sparse_name = value
        elif keyword in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
            records.sparse_size = _number(value)
        elif keyword == b"GNU.sparse.map":
            records.sparse_map = _map(value)
        elif keyword in _MAP:
            is_length = len(records.sparse_map) % 2 == 1
            if is_length != (keyword == b"GNU.sparse.numbytes") or len(records.sparse_map) >= 2 * MAX_REGIONS:
                raise _damaged("the map of a sparse file")
            records.sparse_map.append(_number(value))
    if len(records.sparse_map) % 2:
        raise _damaged("the map of a sparse file")
    if major is not None or records.sparse_map:
        records.sparse_version = (major or 0, minor or 0)
    return records


def check_global(content: bytes) -> set[bytes]:
    """Check the content of a global header, which applies to all members. No model needs it. Return the keywords.

    Raises:
        DamagedArchiveError: it does not consist of records, or gives all members one name or size.
        UnsafeMemberError: the archive begins within a file.
    """
    keywords = set()
    for keyword, _ in _split(content):
        if keyword in _OF_ONE_MEMBER or keyword.startswith(b"GNU.sparse."):
            raise DamagedArchiveError.damaged("a global header has a field for one member only")
        if keyword in (b"GNU.volume.filename", b"GNU.volume.offset"):
            raise another_volume()
        keywords.add(keyword)
    return keywords


def another_volume() -> UnsafeMemberError:
    """Return the error for a member that began on another volume."""
    return UnsafeMemberError("the archive is one of several volumes: join them, or make it without --multi-volume")


def _split(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + _MAX_DIGITS + 1)
        digits = content[at:space] if space > at else b""
        if not digits.isdigit():
            if content[at:].strip(b"\0"):
                raise _damaged("the length of a record")
            return
        end = at + int(digits)
        equal = content.find(b"=", space, end)
        if end > len(content) or equal <= space + 1 or content[end - 1 : end] != b"\n":
            raise _damaged("a record")
        keyword = content[space + 1 : equal]
        if keyword[:1] in b" \t":  # GNU tar skips it, bsdtar takes it as a part of the keyword
            raise _damaged("a record")
        value = content[equal + 1 : end - 1]
        if keyword not in _LARGE and _LONG_NUMBER.search(value):
            raise TooBigError("the archive holds a tar header with a number that is too long")
        yield keyword, value
        at = end


def _map(value: bytes) -> list[int]:
    if value.count(b",") >= 2 * MAX_REGIONS:
        raise TooBigError("the archive holds a sparse file in too many pieces: make it without sparse files")
    return [_number(number) for number in value.split(b",")]


def _number(value: bytes) -> int:
    value = text(value)
    digits = value.lstrip(b"0")[: _MAX_DIGITS + 1] or b"0"
    if not value.isdigit() or int(digits) > MAX_SIZE:
        raise _damaged("a number")
    return int(digits)


def _damaged(what: str) -> DamagedArchiveError:
    return DamagedArchiveError.damaged(f"{what} in an extended tar header is wrong")
