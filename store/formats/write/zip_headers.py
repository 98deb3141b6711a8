"""The headers of a zip (PKWARE APPNOTE 6.3.9): before each member, in the central directory, and at the end.

zip64 fields and records appear only if a number needs them: sizes and offsets from 0xFFFFFFFF on, counts from 65,535
on.
"""

from __future__ import annotations

import datetime
import struct

from bentofs.store.formats.write.members import Member

# In a field, these values mean "see the zip64 record". So a number equal to them goes there, too. zipfile uses zip64
# from 2 GiB on: readers without zip64 (busybox 1.35) then lose everything after such a member.
_MARK16, _MARK32 = 0xFFFF, 0xFFFFFFFF
_VERSION, _VERSION64 = 20, 45
_UNIX = 3
_STORED, _DEFLATED = 0, 8
_UTF8_NAME = 0x800
_FOLDER_ATTRIBUTE = 0x10  # of MS-DOS, in addition to Unix's mode
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
# Info-ZIP's extended timestamp: the mtime in UTC. The DOS fields cannot hold it: their time zone is unknown.
_TIMESTAMP = struct.Struct("<HHBl")
_TIMESTAMP_LIMIT = 0x7FFFFFFF


class Stamp:
    """One mtime in all its encodings."""

    def __init__(self, mtime: int) -> None:
        moment = datetime.datetime.fromtimestamp(min(mtime, 4354819198), datetime.timezone.utc)  # end of 2107
        moment = max(moment, datetime.datetime(1980, 1, 1, tzinfo=datetime.timezone.utc))
        self.date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
        self.time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
        self.extra = _TIMESTAMP.pack(0x5455, 5, 1, mtime) if mtime <= _TIMESTAMP_LIMIT else b""


def local_header(member: Member, packed: int, stamp: Stamp, crc: int) -> bytes:
    """Return the header before a member's content. `packed`: the bytes that the archive holds for the content."""
    name, flags = _name_and_flags(member)
    size, version, extra = member.size, _VERSION, stamp.extra
    method = _method(size, packed)
    if size >= _MARK32:
        extra += struct.pack("<HHQQ", 1, 16, size, packed)
        size = packed = _MARK32
        version = _VERSION64
    header = _LOCAL.pack(
        b"PK\x03\x04",
        version,
        flags,
        method,
        stamp.time,
        stamp.date,
        crc,
        packed,
        size,
        len(name),
        len(extra),
    )
    return header + name + extra


def central_record(member: Member, packed: int, start: int, stamp: Stamp, crc: int) -> bytes:
    """Return a member's record in the central directory. `start`: the offset of its local header."""
    name, flags = _name_and_flags(member)
    size = member.size
    method = _method(size, packed)
    large: tuple[int, ...] = ()
    if size >= _MARK32:
        large += (size, packed)
        size = packed = _MARK32
    if start >= _MARK32:
        large += (start,)
        start = _MARK32
    extra = stamp.extra
    version = _VERSION
    if large:
        # zipfile puts the zip64 field first here, and last in the local header.
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) + extra
        version = _VERSION64
    fixed = _CENTRAL.pack(
        b"PK\x01\x02",
        version,
        _UNIX,
        version,
        0,
        flags,
        method,
        stamp.time,
        stamp.date,
        crc,
        packed,
        size,
        len(name),
        len(extra),
        0,
        0,
        0,
        member.mode << 16 | (_FOLDER_ATTRIBUTE if member.is_folder else 0),
        start,
    )
    return fixed + name + extra


def local_length(member: Member, name_length: int, stamp: Stamp) -> int:
    """Return the length of `local_header`, without making it."""
    return _LOCAL.size + name_length + len(stamp.extra) + (20 if member.size >= _MARK32 else 0)


def central_length(member: Member, name_length: int, start: int, stamp: Stamp) -> int:
    """Return the length of `central_record`, without making it."""
    large = 2 * (member.size >= _MARK32) + (start >= _MARK32)
    return _CENTRAL.size + name_length + len(stamp.extra) + (4 + 8 * large if large else 0)


def end_records(count: int, directory_start: int, directory_length: int) -> bytes:
    """Return the end records."""
    end64 = b""
    if count >= _MARK16 or directory_start >= _MARK32 or directory_length >= _MARK32:
        end64 = _END64.pack(
            b"PK\x06\x06",
            _END64.size - 12,
            _VERSION64,
            _VERSION64,
            0,
            0,
            count,
            count,
            directory_length,
            directory_start,
        ) + _LOCATOR64.pack(b"PK\x06\x07", 0, directory_start + directory_length, 1)
        count = min(count, _MARK16)
        directory_start = min(directory_start, _MARK32)
        directory_length = min(directory_length, _MARK32)
    return end64 + _END.pack(b"PK\x05\x06", 0, 0, count, count, directory_length, directory_start, 0)


def _method(size: int, packed_size: int) -> int:
    """Return the method: a member is deflated only if that makes it shorter."""
    return _STORED if packed_size == size else _DEFLATED


def _name_and_flags(member: Member) -> tuple[bytes, int]:
    """Return the name as written, and its flags. A name that is not UTF-8 has no UTF-8 flag: unzip keeps its bytes."""
    name = member.archive_path
    try:
        name.decode("ascii")
    except UnicodeDecodeError:
        try:
            name.decode("utf-8")
        except UnicodeDecodeError:
            return name, 0
        return name, _UTF8_NAME
    return name, 0
