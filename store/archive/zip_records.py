"""The records of a zip archive as they are read (PKWARE APPNOTE 6.3.10, 4.3 and 4.5).

Python's `zipfile` keeps an object of about a kilobyte for every member, and reads nothing before the end is there; here
each record is read by itself. Numbers are checked to be there, not to be true: that is left to `store.archive.unzip`.
"""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

from store.archive.checksum import crc32
from store.archive.source import Source
from store.errors import DamagedArchiveError

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64, DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
END_LENGTH, LOCATOR64_LENGTH = _END.size, _LOCATOR64.size
MAX_COMMENT = 0xFFFF
MAX_PADDING = 64 << 10  # bytes of zeros after the end: bsdtar fills up a record of 10 KiB when it writes to a pipe
_MARK32, _MARK16 = 0xFFFFFFFF, 0xFFFF
_ENCRYPTED, _HAS_DESCRIPTOR, _UTF8_NAME = 0x1, 0x8, 0x800
_STRONGLY_ENCRYPTED, _MASKED = 0x40, 0x2000
_EXTRA_ZIP64, _EXTRA_UNICODE_PATH = 0x0001, 0x7075
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
    is_zip64: bool  # whether sizes are of 64 bits
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
        _decode(name, flags, extra, is_unix=True),
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
        raise DamagedArchiveError("the archive is one part of a zip in several parts: join them first")
    is_unix = made_by >> 8 in _UNIX
    return Entry(
        name,
        _decode(name, flags, extra, is_unix=is_unix),
        flags,
        method,
        crc,
        compressed,
        size,
        offset,
        attributes >> 16 if is_unix else 0,
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
        directory = Directory(offset, directory_length, count)
    signature, disk, first_disk, here, count, directory_length, offset, comment = _END.unpack(
        _exactly(source, _END.size)
    )
    if signature != END:
        raise DamagedArchiveError("the archive is damaged: the zip's directory is not followed by its end record")
    _exactly(source, comment)
    padding = source.exactly(MAX_PADDING + 1)
    if len(padding) > MAX_PADDING or any(padding):
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
    for signature in (DESCRIPTOR, b""):
        for width in ("<QQ", "<LL") if entry.is_zip64 else ("<LL", "<QQ"):
            if width == "<LL" and max(compressed, size) > _MARK32:
                continue
            sizes = struct.pack(width, compressed, size)
            skip = len(signature)
            if found.startswith(signature) and found[skip + 4 : skip + 4 + len(sizes)] == sizes:
                source.position = start + skip + 4 + len(sizes)
                return int.from_bytes(found[skip : skip + 4], "little")
    if len(found) < 24:
        raise _cut_short()
    raise DamagedArchiveError("the archive is damaged: a zip member's sizes are not those of its content")


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
        raise DamagedArchiveError("the archive is one part of a zip in several parts: join them first")


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


def _decode(name: bytes, flags: int, extra: dict[int, bytes], *, is_unix: bool) -> str:
    """A name as a path: UTF-8 where the archive says so or where it is; else bytes on Unix, and code page 437. Where no
    file can have a backslash in its name, it is what some writers put between names, as Windows PowerShell does."""
    unicode_path = extra.get(_EXTRA_UNICODE_PATH, b"")
    if not flags & _UTF8_NAME and len(unicode_path) > 5:
        version, checksum = struct.unpack_from("<BL", unicode_path)
        if version == 1 and checksum == crc32(name):
            name = unicode_path[5:]
    try:
        path = name.decode("utf-8")
    except UnicodeDecodeError:
        path = name.decode("utf-8", "surrogateescape") if is_unix else name.decode("cp437")
    return path if is_unix else path.replace("\\", "/")
