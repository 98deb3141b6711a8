"""The records of a zip archive as they are read (PKWARE APPNOTE 6.3.10, 4.3 and 4.5).

Python's `zipfile` keeps an object of about a kilobyte for every member, and reads nothing before the end is there; here
each record is read by itself. Numbers are checked to be there, not to be true: that is left to `zip` beside this.

Writers that know no zip64 (macOS's Archive Utility) cut numbers off at 16 or 32 bits: `congruent` numbers may be equal.
"""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.cursor import Source
from bentofs.store.formats.read.zip_names import path_of

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64, DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
END_LENGTH, LOCATOR64_LENGTH = _END.size, _LOCATOR64.size
# Before the first member: of an archive in parts, and of one that was to come in parts and needed but one.
SPLIT_MARK, ONE_PART_MARK = DESCRIPTOR, b"PK00"
MAX_COMMENT = 0xFFFF
# Bytes after the end. bsdtar fills up a record of 10 KiB with zeros when it writes to a pipe; editors, servers and web
# forms leave line ends, boundaries and pages. All readers look for the end in the last 64 KiB.
MAX_TRAILING = 64 << 10
WRAP16, WRAP32 = 1 << 16, 1 << 32
_MARK32, _MARK16 = 0xFFFFFFFF, 0xFFFF
_ENCRYPTED, _HAS_DESCRIPTOR = 0x1, 0x8
_STRONGLY_ENCRYPTED, _MASKED = 0x40, 0x2000
_EXTRA_ZIP64 = 0x0001
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
_UNIX = (3, 19)  # Unix, OS X: what makes names bytes and attributes modes


class Entry(NamedTuple):
    """What a local header, or a record of the central directory, says of a member."""

    raw_name: bytes
    name: str  # as a path; a folder's ends in `/`
    flags: int
    method: int
    crc32: int
    compressed: int  # bytes
    size: int  # bytes
    offset: int  # of the local header
    mode: int  # as st_mode; 0 where it is not known
    is_zip64: bool  # whether sizes are of 64 bits; else they may be cut off
    length: int  # of the record itself, in bytes

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")

    @property
    def is_encrypted(self) -> bool:
        return bool(self.flags & (_ENCRYPTED | _STRONGLY_ENCRYPTED | _MASKED))

    @property
    def has_descriptor(self) -> bool:
        """Whether sizes and CRC-32 follow the content."""
        return bool(self.flags & _HAS_DESCRIPTOR)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Directory(NamedTuple):
    """What the records at the end say of the central directory."""

    offset: int
    length: int  # bytes
    members: int
    is_zip64: bool = False  # whether these are numbers of 64 bits; else they may be cut off

    def is_of(self, offset: int, length: int, members: int) -> bool:
        """Whether these may be its numbers."""
        if self.is_zip64:
            return (offset, length, members) == self[:3]
        return (offset % WRAP32, length % WRAP32, members % WRAP16) == self[:3]


def congruent(true: int, stated: int, entry: Entry) -> bool:
    """Whether a number of 32 bits that an entry states may stand for another one."""
    return true == stated or (not entry.is_zip64 and true % WRAP32 == stated)


def may_follow(content: bytes) -> bool:
    """Whether these bytes may follow the end: not many, and nothing of a zip."""
    return len(content) <= MAX_TRAILING and not any(mark in content for mark in (LOCAL, CENTRAL, END))


def read_local(source: Source) -> Entry:
    """The local header at the source's place."""
    offset = source.position
    fields = _LOCAL.unpack(_exactly(source, _LOCAL.size))
    signature, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = fields
    if signature != LOCAL:
        raise DamagedArchiveError("the archive is damaged: a member is not where the zip's directory has it")
    name, extra = _exactly(source, name_length), _extra(_exactly(source, extra_length))
    large = extra.get(_EXTRA_ZIP64)
    if large is not None:
        (size, compressed), _ = _large(large, (size, compressed))
    return Entry(
        name,
        path_of(name, flags, extra, is_unix=True),
        flags,
        method,
        crc,
        compressed,
        size,
        offset,
        0,
        large is not None,
        source.position - offset,
    )


def read_central(source: Source) -> Entry:
    """The directory's record at the source's place."""
    start = source.position
    fields = _CENTRAL.unpack(_exactly(source, _CENTRAL.size))
    signature, made_by, _, flags, method, _, _, crc, compressed, size, *rest = fields
    name_length, extra_length, comment_length, disk, _, attributes, offset = rest
    if signature != CENTRAL:
        raise DamagedArchiveError("the archive is damaged: the zip's directory does not hold together")
    name, extra = _exactly(source, name_length), _extra(_exactly(source, extra_length))
    _exactly(source, comment_length)
    large = extra.get(_EXTRA_ZIP64)
    if large is not None:
        (size, compressed, offset), large = _large(large, (size, compressed, offset))
        if disk == _MARK16:
            disk = int.from_bytes(large[:4], "little")
    if disk:
        raise DamagedArchiveError("the archive is one part of several of a zip: join all parts first")
    is_unix = made_by >> 8 in _UNIX
    return Entry(
        name,
        path_of(name, flags, extra, is_unix=is_unix),
        flags,
        method,
        crc,
        compressed,
        size,
        offset,
        _mode(attributes >> 16, size) if is_unix else 0,
        large is not None,
        source.position - start,
    )


def read_end(source: Source) -> Directory:
    """The records from the end of the directory to the end of the archive, at the source's place."""
    start = source.position
    directory: Directory | None = None
    if _peek(source) == END64:
        head = _exactly(source, _END64.size)
        _, length, _, _, disk, first_disk, here, count, directory_length, offset = _END64.unpack(head)
        _exactly(source, min(length + 12 - _END64.size, 1 << 20) if length + 12 > _END64.size else 0)
        signature, locator_disk, locator_offset, _ = _LOCATOR64.unpack(_exactly(source, _LOCATOR64.size))
        if signature != LOCATOR64 or locator_offset != start:
            raise DamagedArchiveError("the archive is damaged: the end records of the zip disagree")
        _refuse_parts(disk, first_disk, locator_disk, here != count)
        directory = Directory(offset, directory_length, count, is_zip64=True)
    signature, disk, first_disk, here, count, directory_length, offset, comment = _END.unpack(
        _exactly(source, _END.size)
    )
    if signature != END:
        raise DamagedArchiveError("the archive is damaged: the zip's directory is not followed by its end record")
    _exactly(source, comment)
    if not may_follow(source.exactly(MAX_TRAILING + 1)):
        raise DamagedArchiveError("the archive is damaged: something follows the end of the zip")
    if directory is None:
        _refuse_parts(disk, first_disk, 0, here != count)
        return Directory(offset, directory_length, count)
    for small, large, mark in (
        (offset, directory.offset, _MARK32),
        (directory_length, directory.length, _MARK32),
        (count, directory.members, _MARK16),
    ):
        if small not in (mark, large):
            raise DamagedArchiveError("the archive is damaged: the end records of the zip disagree")
    return directory


def read_descriptor(source: Source, entry: Entry, compressed: int, size: int) -> int:
    """Go on behind the data descriptor of a member whose content had these lengths. Gives its CRC-32.

    Whether it has a signature, and numbers of 64 bits, is told by what agrees with the lengths.
    """
    start = source.position
    found = source.exactly(24)
    widths = ("<QQ", "<LL") if entry.is_zip64 or max(compressed, size) >= WRAP32 else ("<LL", "<QQ")
    for signature in (DESCRIPTOR, b""):
        for width in widths:
            wrap = WRAP32 if width == "<LL" else 1 << 64
            sizes = struct.pack(width, compressed % wrap, size % wrap)
            skip = len(signature)
            if found.startswith(signature) and found[skip + 4 : skip + 4 + len(sizes)] == sizes:
                source.position = start + skip + 4 + len(sizes)
                return int.from_bytes(found[skip : skip + 4], "little")
    if len(found) < 24:
        raise _cut_short()
    raise DamagedArchiveError("the archive is damaged: a zip member's sizes are not those of its content")


def _mode(mode: int, size: int) -> int:
    """What `zip` was given through a pipe has a pipe's mode, and is a file; other writers leave what is no mode."""
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFIFO and size:
        return stat.S_IFREG | stat.S_IMODE(mode)
    return mode if kind in _KINDS or not kind else 0


def _peek(source: Source) -> bytes:
    head = source.exactly(4)
    source.position -= len(head)
    return head


def _exactly(source: Source, count: int) -> bytes:
    content = source.exactly(count)
    if len(content) < count:
        raise _cut_short()
    return content


def _cut_short() -> DamagedArchiveError:
    return DamagedArchiveError("the archive is cut short: the zip's directory at its end is missing")


def _refuse_parts(*disks: int) -> None:
    if any(disks):
        raise DamagedArchiveError("the archive is one part of several of a zip: join all parts first")


def _extra(content: bytes) -> dict[int, bytes]:
    """The extra fields by their IDs, the first of each. Some writers leave padding that is no field: it is left out."""
    fields: dict[int, bytes] = {}
    while len(content) >= 4:
        kind, length = struct.unpack_from("<HH", content)
        fields.setdefault(kind, content[4 : 4 + length])
        content = content[4 + length :]
    return fields


def _large(content: bytes, values: tuple[int, ...]) -> tuple[list[int], bytes]:
    """Values of 32 bits, those that are marked replaced by what a zip64 field holds, and the rest of the field."""
    found = []
    for value in values:
        if value == _MARK32:
            if len(content) < 8:
                raise DamagedArchiveError("the archive is damaged: a zip64 field is too short")
            value, content = int.from_bytes(content[:8], "little"), content[8:]
        found.append(value)
    return found, content
