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
_COMMON = struct.Struct("<5H3L2H")  # the fields of both headers
_CENTRAL_END = struct.Struct("<3H2L")  # the fields that only the record in the directory has behind these
_LOCAL_LENGTH = 4 + _COMMON.size
_CENTRAL_LENGTH = 4 + 2 + _COMMON.size + _CENTRAL_END.size
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
    large, extra = (member.size, packed) if member.size >= _MARK32 else (), stamp.extra
    if large:
        extra += _zip64(large)
    name, fields = _common(member, packed, stamp, crc, extra, is_zip64=bool(large))
    return b"PK\x03\x04" + fields + name + extra


def central_record(member: Member, packed: int, start: int, stamp: Stamp, crc: int) -> bytes:
    """Return a member's record in the central directory. `start`: the offset of its local header."""
    large: tuple[int, ...] = (member.size, packed) if member.size >= _MARK32 else ()
    extra = stamp.extra
    if start >= _MARK32:
        large += (start,)
    if large:
        extra = _zip64(large) + extra  # zipfile puts it first here, and last in the local header
    name, fields = _common(member, packed, stamp, crc, extra, is_zip64=bool(large))
    attributes = member.mode << 16 | (_FOLDER_ATTRIBUTE if member.is_folder else 0)
    made_by = bytes([fields[0], _UNIX])  # the version that is needed to extract it, and the system
    return b"PK\x01\x02" + made_by + fields + _CENTRAL_END.pack(0, 0, 0, attributes, min(start, _MARK32)) + name + extra


def _common(
    member: Member, packed: int, stamp: Stamp, crc: int, extra: bytes, *, is_zip64: bool
) -> tuple[bytes, bytes]:
    """Return a member's name as written, and the fields that both of its headers have."""
    name, flags = _name_and_flags(member)
    method = _STORED if packed == member.size else _DEFLATED  # deflated only if that makes it shorter
    size, packed = (_MARK32, _MARK32) if member.size >= _MARK32 else (member.size, packed)
    version = _VERSION64 if is_zip64 else _VERSION
    numbers = (version, flags, method, stamp.time, stamp.date, crc, packed, size, len(name), len(extra))
    return name, _COMMON.pack(*numbers)


def _zip64(numbers: tuple[int, ...]) -> bytes:
    """Return the extra field for numbers that do not fit in 32 bits."""
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


def local_length(size: int, name_length: int, stamp: Stamp) -> int:
    """Return the length of `local_header` for a member of `size` bytes, without making it."""
    return _LOCAL_LENGTH + name_length + len(stamp.extra) + (20 if size >= _MARK32 else 0)


def central_length(size: int, name_length: int, start: int, stamp: Stamp) -> int:
    """Return the length of `central_record` for a member of `size` bytes, without making it."""
    large = 2 * (size >= _MARK32) + (start >= _MARK32)
    return _CENTRAL_LENGTH + name_length + len(stamp.extra) + (4 + 8 * large if large else 0)


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
