"""zip (PKWARE APPNOTE 6.3.9), with the layout of Python's `zipfile`. Entries are stored or deflated.

Local headers hold the sizes and CRC-32s, so a streaming reader needs no data descriptor. Each CRC comes from the
measurement when its header is read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from bentofs.store.formats.pieces import Literal, Piece, PieceList, Views, copy_into, split
from bentofs.store.formats.write.members import Member, name_length, shapes_of
from bentofs.store.formats.write.segments import lay_out_in_segments
from bentofs.store.formats.write.zip_headers import (
    Stamp,
    central_length,
    central_record,
    end_records,
    local_header,
    local_length,
)

_WORTH_AHEAD = 256 << 10  # bytes of content; the CRC-32 of less takes almost no time

Checksum = Callable[[Member], int]
Ahead = Callable[[Member, int], bool]


class Packer(Protocol):
    """Makes the bytes that the archive holds for members' contents: a shorter deflate stream, or the content."""

    def add(self, size: int) -> int:
        """Return the length of a member's packed content of `size` bytes. Called once for each member, in order."""

    def pieces(self, numbers: range, members: Sequence[Member]) -> Iterable[Sequence[Piece]]:
        """Yield the pieces of each of these members. `numbers`: their numbers in the archive."""


class _AsItIs:
    """Stores all content."""

    def add(self, size: int) -> int:
        return size

    def pieces(self, _numbers: range, members: Sequence[Member]) -> Iterable[Sequence[Piece]]:
        return (() if member.content is None else (member.content,) for member in members)


def _not_ahead(_member: Member, _count: int) -> bool:
    return False


def lay_out_zip(
    members: Sequence[Member],
    mtime: int,
    checksum: Checksum,
    ahead: Ahead = _not_ahead,
    packer: Packer | None = None,
) -> PieceList:
    """Lay out the archive of `members` in their order, all with one mtime (seconds).

    If there are very many members, each read takes only the members it needs from the sequence, again and again.

    `checksum` gives the CRC-32 of a member's content. It is called as late as possible, and only for members with
    content.
    `ahead` reads a number of bytes of the next member for its `checksum` in advance. It is called while an earlier
    member's content is read. It returns False if it need not be called again.
    `packer`: None to store all content.
    """
    layout = _Layout(members, Stamp(mtime), checksum, ahead, packer or _AsItIs())
    pieces = lay_out_in_segments(len(members), layout.lay_out, layout.length)
    directory_start = pieces.length
    directory = _Directory(layout)
    pieces.append(directory)
    pieces.append(Literal(end_records(len(members), directory_start, directory.length)))
    return pieces


def zip_length(members: Sequence[Member], mtime: int) -> int:
    """Return the archive's length in bytes, without laying it out."""
    stamp = Stamp(mtime)
    start = directory = 0
    for path, is_folder, _, size in shapes_of(members):
        length = name_length(path, is_folder)
        directory += central_length(size, length, start, stamp)
        start += local_length(size, length, stamp) + size
    return start + directory + len(end_records(len(members), start, directory))


class HeaderMaker:
    """Makes the headers of members whose packed lengths become known one by one."""

    def __init__(self, members: Sequence[Member], mtime: int) -> None:
        self._members = members
        self._stamp = Stamp(mtime)

    def length(self, number: int) -> int:
        """Return the length of a member's header."""
        member = self._members[number]
        return local_length(member.size, len(member.archive_path), self._stamp)

    def header(self, number: int, packed: int, crc: int) -> bytes:
        """Return a member's header. `packed`: the bytes that the archive holds for its content."""
        return local_header(self._members[number], packed, self._stamp, crc)


class _Layout:
    """The places of all members, in columns."""

    def __init__(
        self, members: Sequence[Member], stamp: Stamp, checksum: Checksum, ahead: Ahead, packer: Packer
    ) -> None:
        self.members = members
        self.stamp = stamp
        self._checksum = checksum
        self._ahead = ahead
        self._packer = packer
        self.starts = array("Q", [0])  # of the local headers, and of the directory
        self.packed_sizes = array("Q")
        self.record_starts = array("Q", [0])  # within the directory; the last one is its end
        self._leading = array("I")  # numbers of the large stored members
        start = record = 0
        for number, (path, is_folder, _, size) in enumerate(shapes_of(members)):
            packed, length = packer.add(size), name_length(path, is_folder)
            if packed == size and size >= _WORTH_AHEAD:
                self._leading.append(number)
            self.packed_sizes.append(packed)
            record += central_length(size, length, start, stamp)
            self.record_starts.append(record)
            start += local_length(size, length, stamp) + packed
            self.starts.append(start)

    def length(self, numbers: range) -> int:
        """Return the length of what `lay_out` lays out."""
        return self.starts[numbers.stop] - self.starts[numbers.start]

    def lay_out(self, numbers: range) -> PieceList:
        """Lay out the members with these numbers."""
        members = self.members[numbers.start : numbers.stop]
        pieces = PieceList()
        for number, member, packed in zip(numbers, members, self._packer.pieces(numbers, members), strict=True):
            pieces.append(_LocalHeader(self, number, member))
            if len(packed) == 1 and packed[0].length >= _WORTH_AHEAD:
                pieces.append(_Leading(packed[0], self._ahead, self._leading_after(number)))
            else:
                for piece in packed:
                    pieces.append(piece)
        return pieces

    def crc32(self, member: Member) -> int:
        """Return the CRC-32 of a member's content."""
        return self._checksum(member) if member.content is not None else 0

    def _leading_after(self, number: int) -> Callable[[], Member] | None:
        index = bisect_right(self._leading, number)
        return (lambda: self.members[self._leading[index]]) if index < len(self._leading) else None


class _Leading:
    """The content of a large member. While it is read in order, the CRC-32 of the next large member is computed.

    The next header needs that CRC-32. Else its reader would wait and receive nothing meanwhile.
    """

    __slots__ = ("_ahead", "_following", "_next", "_piece", "_position", "length")

    def __init__(self, piece: Piece, ahead: Ahead, following: Callable[[], Member] | None) -> None:
        """`following`: returns the next large member; None if there is none."""
        self._piece = piece
        self._ahead = ahead
        self._following = following
        self._next: Member | None = None
        self._position = 0  # where a sequential reader reads next
        self.length = piece.length

    def read_into(self, views: Views, offset: int) -> None:
        self._piece.read_into(views, offset)
        following = self._following
        if following is not None and offset == self._position:
            count = sum(map(len, views))
            self._position = offset + count
            self._next = member = self._next or following()
            if not self._ahead(member, count):
                self._following = self._next = None


class _LocalHeader:
    """A member's header, made on read: it needs the content's CRC-32."""

    __slots__ = ("_layout", "_member", "_number", "length")

    def __init__(self, layout: _Layout, number: int, member: Member) -> None:
        self._layout = layout
        self._number = number
        self._member = member
        starts = layout.starts
        self.length = starts[number + 1] - starts[number] - layout.packed_sizes[number]

    def read_into(self, views: Views, offset: int) -> None:
        layout, member = self._layout, self._member
        packed = layout.packed_sizes[self._number]
        copy_into(views, local_header(member, packed, layout.stamp, layout.crc32(member)), offset)


class _Directory:
    """The central directory: one record a member, made on read."""

    def __init__(self, layout: _Layout) -> None:
        self._layout = layout
        self.length = layout.record_starts[-1]

    def read_into(self, views: Views, offset: int) -> None:
        wanted = sum(map(len, views))
        starts = self._layout.record_starts
        index = bisect_right(starts, offset) - 1
        skip = offset - starts[index]
        rest = list(views)
        while wanted:
            record = self._record(index)[skip : skip + wanted]
            head, rest = split(rest, len(record))
            copy_into(head, record, 0)
            wanted -= len(record)
            skip = 0
            index += 1

    def _record(self, index: int) -> bytes:
        layout = self._layout
        member = layout.members[index]
        packed, start = layout.packed_sizes[index], layout.starts[index]
        return central_record(member, packed, start, layout.stamp, layout.crc32(member))
