"""Reading of the records of a zip archive (PKWARE APPNOTE 6.3.10, 4.3 and 4.5).

Python's `zipfile` keeps about a kilobyte for every member, and reads nothing before the end has arrived. Here each
record is read separately. Numbers are only checked to be present; `zip` in this package checks that they are true.

Writers without zip64 (macOS's Archive Utility) cut numbers off at 16 or 32 bits: `congruent` numbers may be equal.
"""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.cursor import Cursor, cut_short
from bentofs.store.formats.read.zip_names import path_of

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64, DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
END_LENGTH, LOCATOR64_LENGTH = _END.size, _LOCATOR64.size
# Before the first member: the mark of a split archive, and the mark of one planned as split that needed one part.
SPLIT_MARK, ONE_PART_MARK = DESCRIPTOR, b"PK00"
MAX_COMMENT = 0xFFFF
# Bytes allowed after the end. bsdtar pads a record of 10 KiB with zeros when it writes to a pipe. Editors, servers and
# web forms leave line ends, boundaries and pages. All readers search for the end in the last 64 KiB.
MAX_TRAILING = 64 << 10
WRAP16, WRAP32 = 1 << 16, 1 << 32
_MARK32, _MARK16 = 0xFFFFFFFF, 0xFFFF
_ENCRYPTED, _HAS_DESCRIPTOR = 0x1, 0x8
_STRONGLY_ENCRYPTED, _MASKED = 0x40, 0x2000
_EXTRA_ZIP64 = 0x0001
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_UNIX = (3, 19)  # Unix, OS X: names are bytes and attributes are modes


NO_DIRECTORY = "the zip's directory at its end is missing"


class ZipEntry(NamedTuple):
    """A member's local header or its record in the central directory."""

    raw_name: bytes
    name: str  # as a path; ends in `/` for a directory
    flags: int
    method: int
    crc32: int
    compressed: int  # bytes
    size: int  # bytes
    offset: int  # of the local header
    mode: int  # as st_mode; 0 if it is unknown
    is_zip64: bool  # true if sizes have 64 bits; else they may be cut off
    length: int  # of the record itself, in bytes

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")

    @property
    def is_encrypted(self) -> bool:
        return bool(self.flags & (_ENCRYPTED | _STRONGLY_ENCRYPTED | _MASKED))

    @property
    def has_descriptor(self) -> bool:
        """True if sizes and CRC-32 follow the content."""
        return bool(self.flags & _HAS_DESCRIPTOR)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Directory(NamedTuple):
    """The numbers of the central directory in the end records."""

    offset: int
    length: int  # bytes
    members: int
    is_zip64: bool = False  # true if these numbers have 64 bits; else they may be cut off

    def is_of(self, offset: int, length: int, members: int) -> bool:
        """Tell whether these can be the directory's numbers."""
        if self.is_zip64:
            return (offset, length, members) == self[:3]
        return (offset % WRAP32, length % WRAP32, members % WRAP16) == self[:3]


def congruent(true: int, stated: int, entry: ZipEntry) -> bool:
    """Tell whether the number `stated` in an entry can be `true`, perhaps cut off at 32 bits."""
    return true == stated or (not entry.is_zip64 and true % WRAP32 == stated)


def may_follow(content: bytes) -> bool:
    """Tell whether these bytes may follow the end: not too many, and no records of a zip."""
    return len(content) <= MAX_TRAILING and not any(mark in content for mark in (LOCAL, CENTRAL, END))


def read_local(cursor: Cursor) -> ZipEntry:
    """Read the local header at the cursor."""
    offset = cursor.position
    fields = _LOCAL.unpack(cursor.whole(_LOCAL.size, NO_DIRECTORY))
    signature, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = fields
    if signature != LOCAL:
        raise DamagedArchiveError.damaged("a member is not where the zip's directory has it")
    name, extra = cursor.whole(name_length, NO_DIRECTORY), _extra(cursor.whole(extra_length, NO_DIRECTORY))
    large = extra.get(_EXTRA_ZIP64)
    if large is not None:
        (size, compressed), _ = _large(large, (size, compressed))
    path, length = path_of(name, flags, extra, is_unix=True), cursor.position - offset
    return ZipEntry(name, path, flags, method, crc, compressed, size, offset, 0, large is not None, length)


def read_central(cursor: Cursor) -> ZipEntry:
    """Read the directory's record at the cursor."""
    start = cursor.position
    fields = _CENTRAL.unpack(cursor.whole(_CENTRAL.size, NO_DIRECTORY))
    signature, made_by, _, flags, method, _, _, crc, compressed, size, *rest = fields
    name_length, extra_length, comment_length, disk, _, attributes, offset = rest
    if signature != CENTRAL:
        raise DamagedArchiveError.damaged("the zip's directory does not hold together")
    name, extra = cursor.whole(name_length, NO_DIRECTORY), _extra(cursor.whole(extra_length, NO_DIRECTORY))
    cursor.whole(comment_length, NO_DIRECTORY)
    large = extra.get(_EXTRA_ZIP64)
    if large is not None:
        (size, compressed, offset), large = _large(large, (size, compressed, offset))
        if disk == _MARK16:
            disk = int.from_bytes(large[:4], "little")
    if disk:
        raise DamagedArchiveError("the archive is one part of several of a zip: join all parts first")
    is_unix = made_by >> 8 in _UNIX
    path, mode = path_of(name, flags, extra, is_unix=is_unix), _mode(attributes >> 16, size) if is_unix else 0
    length = cursor.position - start
    return ZipEntry(name, path, flags, method, crc, compressed, size, offset, mode, large is not None, length)


def read_end(cursor: Cursor) -> Directory:
    """Read the records at the cursor, from the end of the directory to the end of the archive."""
    start = cursor.position
    directory: Directory | None = None
    if cursor.peek(4) == END64:
        head = cursor.whole(_END64.size, NO_DIRECTORY)
        _, length, _, _, disk, first_disk, here, count, directory_length, offset = _END64.unpack(head)
        cursor.whole(min(length + 12 - _END64.size, 1 << 20) if length + 12 > _END64.size else 0, NO_DIRECTORY)
        signature, locator_disk, locator_offset, _ = _LOCATOR64.unpack(cursor.whole(_LOCATOR64.size, NO_DIRECTORY))
        if signature != LOCATOR64 or locator_offset != start:
            raise DamagedArchiveError.damaged("the end records of the zip disagree")
        _refuse_parts(disk, first_disk, locator_disk, here != count)
        directory = Directory(offset, directory_length, count, is_zip64=True)
    signature, disk, first_disk, here, count, directory_length, offset, comment = _END.unpack(
        cursor.whole(_END.size, NO_DIRECTORY)
    )
    if signature != END:
        raise DamagedArchiveError.damaged("the zip's directory is not followed by its end record")
    cursor.whole(comment, NO_DIRECTORY)
    if not may_follow(cursor.exactly(MAX_TRAILING + 1)):
        raise DamagedArchiveError.damaged("something follows the end of the zip")
    if directory is None:
        _refuse_parts(disk, first_disk, 0, here != count)
        return Directory(offset, directory_length, count)
    for small, large, mark in (
        (offset, directory.offset, _MARK32),
        (directory_length, directory.length, _MARK32),
        (count, directory.members, _MARK16),
    ):
        if small not in (mark, large):
            raise DamagedArchiveError.damaged("the end records of the zip disagree")
    return directory


def read_descriptor(cursor: Cursor, entry: ZipEntry, compressed: int, size: int) -> int:
    """Skip the data descriptor of a member whose content had these lengths. Return its CRC-32.

    The signature is optional, and numbers have 32 or 64 bits: the variant that matches the lengths is taken.
    """
    start = cursor.position
    found = cursor.exactly(24)
    widths = ("<QQ", "<LL") if entry.is_zip64 or max(compressed, size) >= WRAP32 else ("<LL", "<QQ")
    for signature in (DESCRIPTOR, b""):
        for width in widths:
            wrap = WRAP32 if width == "<LL" else 1 << 64
            sizes = struct.pack(width, compressed % wrap, size % wrap)
            skip = len(signature)
            if found.startswith(signature) and found[skip + 4 : skip + 4 + len(sizes)] == sizes:
                cursor.position = start + skip + 4 + len(sizes)
                return int.from_bytes(found[skip : skip + 4], "little")
    if len(found) < 24:
        raise cut_short(NO_DIRECTORY)
    raise DamagedArchiveError.damaged("a zip member's sizes are not those of its content")


def _mode(mode: int, size: int) -> int:
    """Correct a mode. `zip` gives a file from a pipe a pipe's mode. Other writers leave values that are no mode."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFIFO and size:
        return stat.S_IFREG | stat.S_IMODE(mode)
    return mode if kind in _KINDS or not kind else 0


def _refuse_parts(*disks: int) -> None:
    if any(disks):
        raise DamagedArchiveError("the archive is one part of several of a zip: join all parts first")


def _extra(content: bytes) -> dict[int, bytes]:
    """Return the extra fields by ID, the first of each. Padding that is no field, from some writers, is ignored."""
    fields: dict[int, bytes] = {}
    while len(content) >= 4:
        kind, length = struct.unpack_from("<HH", content)
        fields.setdefault(kind, content[4 : 4 + length])
        content = content[4 + length :]
    return fields


def _large(content: bytes, values: tuple[int, ...]) -> tuple[list[int], bytes]:
    """Replace the marked values of 32 bits with values from a zip64 field. Return all values and the field's rest."""
    found = []
    for value in values:
        if value == _MARK32:
            if len(content) < 8:
                raise DamagedArchiveError.damaged("a zip64 field is too short")
            value, content = int.from_bytes(content[:8], "little"), content[8:]
        found.append(value)
    return found, content
