"""zip (PKWARE APPNOTE 6.3.9), with the layout of Python's `zipfile`. Entries are stored or deflated.

Local headers hold the sizes and CRC-32s, so a streaming reader needs no data descriptor. Each CRC comes from the
measurement when its header is read. zip64 fields and records appear only if a number needs them: sizes and offsets from
0xFFFFFFFF on, counts from 65,535 on.
"""

from __future__ import annotations

import datetime
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence

from bentofs.store.formats.pieces import Literal, Piece, PieceList, Views, copy_into, split
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
_WORTH_AHEAD = 256 << 10  # bytes of content; the CRC-32 of less takes almost no time

Checksum = Callable[[Member], int]
Ahead = Callable[[Member, int], bool]
Pack = Callable[[Member], Sequence[Piece]]


def _as_it_is(member: Member) -> Sequence[Piece]:
    return () if member.content is None else (member.content,)


def _not_ahead(_member: Member, _count: int) -> bool:
    return False


def lay_out_zip(
    members: Sequence[Member], mtime: int, checksum: Checksum, ahead: Ahead = _not_ahead, pack: Pack = _as_it_is
) -> PieceList:
    """Lay out the archive of `members` in their order, all with one mtime (seconds).

    `checksum` gives the CRC-32 of a member's content. It is called as late as possible, and only for members with
    content.
    `ahead` reads a number of bytes of the next member for its `checksum` in advance. It is called while an earlier
    member's content is read. It returns False if it need not be called again.
    `pack` gives the pieces that the archive holds for a member's content: a shorter deflate stream, or the content.
    """
    stamp = _Stamp(mtime)
    pieces = PieceList()
    starts, sizes = array("Q"), array("Q")
    leading: _Leading | None = None
    for member in members:
        starts.append(pieces.length)
        packed = pack(member)
        if len(packed) == 1 and packed[0].length >= _WORTH_AHEAD:
            if leading is not None:
                leading.next = member
            leading = _Leading(packed[0], ahead)
            packed = (leading,)
        sizes.append(sum(piece.length for piece in packed))
        pieces.append(_LocalHeader(member, sizes[-1], stamp, checksum))
        for piece in packed:
            pieces.append(piece)
    directory = _Directory(members, starts, sizes, stamp, checksum)
    pieces_length = pieces.length
    pieces.append(directory)
    end = _end(len(members), pieces_length, directory.length)
    pieces.append(Literal(end))
    return pieces


def zip_length(members: Sequence[Member], mtime: int) -> int:
    """Return the archive's length in bytes, without laying it out."""
    stamp = _Stamp(mtime)
    start = directory = 0
    for member in members:
        name_length = len(member.archive_path)
        directory += _central_length(member, name_length, start, stamp)
        start += _local_length(member, name_length, stamp) + member.size
    return start + directory + len(_end(len(members), start, directory))


class _Stamp:
    """One mtime in all its encodings."""

    def __init__(self, mtime: int) -> None:
        moment = datetime.datetime.fromtimestamp(min(mtime, 4354819198), datetime.timezone.utc)  # end of 2107
        moment = max(moment, datetime.datetime(1980, 1, 1, tzinfo=datetime.timezone.utc))
        self.date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
        self.time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
        self.extra = _TIMESTAMP.pack(0x5455, 5, 1, mtime) if mtime <= _TIMESTAMP_LIMIT else b""


class _Leading:
    """The content of a large member. While it is read in order, the CRC-32 of the next large member is computed.

    The next header needs that CRC-32. Else its reader would wait and receive nothing meanwhile.
    """

    __slots__ = ("_ahead", "_piece", "_position", "length", "next")

    def __init__(self, piece: Piece, ahead: Ahead) -> None:
        self._piece = piece
        self._ahead = ahead
        self._position = 0  # where a sequential reader reads next
        self.length = piece.length
        self.next: Member | None = None

    def read_into(self, views: Views, offset: int) -> None:
        self._piece.read_into(views, offset)
        if self.next is not None and offset == self._position:
            count = sum(map(len, views))
            self._position = offset + count
            if not self._ahead(self.next, count):
                self.next = None


class _LocalHeader:
    """A member's header, made on read: it needs the content's CRC-32."""

    __slots__ = ("_checksum", "_member", "_packed_size", "_stamp", "length")

    def __init__(self, member: Member, packed_size: int, stamp: _Stamp, checksum: Checksum) -> None:
        self._member = member
        self._packed_size = packed_size
        self._stamp = stamp
        self._checksum = checksum
        self.length = _local_length(member, len(member.archive_path), stamp)

    def read_into(self, views: Views, offset: int) -> None:
        member = self._member
        name, flags = _name_and_flags(member)
        size, packed, version, extra = member.size, self._packed_size, _VERSION, self._stamp.extra
        method = _method(size, packed)
        if size >= _MARK32:
            extra += struct.pack("<HHQQ", 1, 16, size, packed)
            size = packed = _MARK32
            version = _VERSION64
        crc = self._checksum(member) if member.content is not None else 0
        header = _LOCAL.pack(
            b"PK\x03\x04",
            version,
            flags,
            method,
            self._stamp.time,
            self._stamp.date,
            crc,
            packed,
            size,
            len(name),
            len(extra),
        )
        copy_into(views, header + name + extra, offset)


class _Directory:
    """The central directory: one record a member, made on read."""

    def __init__(
        self,
        members: Sequence[Member],
        starts: array[int],
        packed_sizes: array[int],
        stamp: _Stamp,
        checksum: Checksum,
    ) -> None:
        """`starts`: the offset of each member's local header."""
        self._members = members
        self._member_starts = starts
        self._packed_sizes = packed_sizes
        self._stamp = stamp
        self._checksum = checksum
        self._starts = array("Q")  # of the records, within the directory
        self.length = 0
        for member, start in zip(members, starts, strict=True):
            self._starts.append(self.length)
            self.length += _central_length(member, len(member.archive_path), start, stamp)

    def read_into(self, views: Views, offset: int) -> None:
        wanted = sum(map(len, views))
        index = bisect_right(self._starts, offset) - 1
        skip = offset - self._starts[index]
        rest = list(views)
        while wanted:
            record = self._record(index)[skip : skip + wanted]
            head, rest = split(rest, len(record))
            copy_into(head, record, 0)
            wanted -= len(record)
            skip = 0
            index += 1

    def _record(self, index: int) -> bytes:
        member, start = self._members[index], self._member_starts[index]
        name, flags = _name_and_flags(member)
        size, packed = member.size, self._packed_sizes[index]
        method = _method(size, packed)
        large: tuple[int, ...] = ()
        if size >= _MARK32:
            large += (size, packed)
            size = packed = _MARK32
        if start >= _MARK32:
            large += (start,)
            start = _MARK32
        extra = self._stamp.extra
        version = _VERSION
        if large:
            # zipfile puts the zip64 field first here, and last in the local header.
            extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) + extra
            version = _VERSION64
        crc = self._checksum(member) if member.content is not None else 0
        fixed = _CENTRAL.pack(
            b"PK\x01\x02",
            version,
            _UNIX,
            version,
            0,
            flags,
            method,
            self._stamp.time,
            self._stamp.date,
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


def _local_length(member: Member, name_length: int, stamp: _Stamp) -> int:
    return _LOCAL.size + name_length + len(stamp.extra) + (20 if member.size >= _MARK32 else 0)


def _central_length(member: Member, name_length: int, start: int, stamp: _Stamp) -> int:
    large = 2 * (member.size >= _MARK32) + (start >= _MARK32)
    return _CENTRAL.size + name_length + len(stamp.extra) + (4 + 8 * large if large else 0)


def _end(count: int, directory_start: int, directory_length: int) -> bytes:
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
