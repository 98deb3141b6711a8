"""tar: POSIX.1-2001 (pax) by Python's `tarfile`. Every length is computed by arithmetic.

A member has one 512-byte header. A pax header precedes it only if ustar's fields do not hold the name or the size.
Content is padded to 512 bytes. Two blocks of zeros end the archive, padded to a record of 10,240 bytes like GNU tar and
tarfile do.

A size of 8 GiB or more is in the pax header, and also in the member's own header, in GNU tar's encoding (base-256):
busybox and toybox skip pax headers.
"""

from __future__ import annotations

import functools
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence

from bentofs.store.formats.pieces import PieceList, Views, Zeros, copy_into
from bentofs.store.formats.write.members import Member, Shape, shapes_of
from bentofs.store.formats.write.segments import lay_out_in_segments
from bentofs.store.util.names import portable_name

_BLOCK = tarfile.BLOCKSIZE
_USTAR_SIZE_LIMIT = 8**11  # the first size or mtime that eleven octal digits do not hold
_USTAR_NAME_LIMIT = tarfile.LENGTH_NAME  # bytes
# Bytes at most of a pax header's records without the path itself: `21 hdrcharset=BINARY`, `ddd path=`, `dd size=` and
# `dd mtime=`, with their numbers of up to 20 digits.
_OTHER_RECORDS = 100
# Bytes of a path that surely fits, also as a directory and with `./` in front.
_SHORT_PATH = _USTAR_NAME_LIMIT - 3
_PADDINGS = [Zeros(length) for length in range(_BLOCK)]


# The place of a member in a tar: the starts of its header and its content, the end of the padding, bytes of content.
# It is a plain tuple, as a model may have hundreds of thousands.
Span = tuple[int, int, int, int]


def tar_length(members: Sequence[Member], mtime: int) -> int:
    """Return the archive's length in bytes, without laying it out."""
    content = max((stop for _, _, stop, _ in tar_spans(members, mtime)), default=0)
    return content + end_length(content)


def lay_out_tar(members: Sequence[Member], mtime: int) -> PieceList:
    """Lay out the archive of `members` in their order, all with one mtime (seconds).

    If there are very many members, each read takes only the members it needs from the sequence, again and again.
    """

    def lay_out(numbers: range) -> PieceList:
        pieces = PieceList()
        for member in members[numbers.start : numbers.stop]:
            pieces.append(_Header(member, mtime))
            if member.content is not None:
                pieces.append(member.content)
                pieces.append(_PADDINGS[padding_length(member.size)])
        return pieces

    starts = array("Q", [0])
    starts.extend(stop for _, _, stop, _ in tar_spans(members, mtime))

    def length(numbers: range) -> int:
        return starts[numbers.stop] - starts[numbers.start]

    pieces = lay_out_in_segments(len(members), lay_out, length)
    pieces.append(Zeros(end_length(pieces.length)))
    return pieces


def tar_spans(members: Sequence[Member], mtime: int) -> Iterator[Span]:
    """Yield the place of each member in the layout of `lay_out_tar`."""
    start = 0
    is_plain = mtime < _USTAR_SIZE_LIMIT
    for path, is_folder, executable, size in shapes_of(members):
        if is_plain and len(path) <= _SHORT_PATH and path.isascii() and size < _USTAR_SIZE_LIMIT:
            content = start + _BLOCK
        else:
            content = start + header_length(_shaped(path, is_folder, executable, size), mtime)
        stop = content + size + -size % _BLOCK
        yield start, content, stop, size
        start = stop


def _shaped(path: bytes, is_folder: bool, executable: bool, size: int) -> Member:
    """Return a member with this shape, for its header."""
    return Member(os.fsdecode(path), is_folder, executable, Zeros(size) if size else None)


def header_length(member: Member, mtime: int) -> int:
    """Return the length of `header`, without making it if possible."""
    if _is_plain(member, mtime):
        return _BLOCK
    if len(member.archive_path) + _OTHER_RECORDS <= _BLOCK:
        return 3 * _BLOCK  # the pax header, its records in one block, and the member's header
    return len(header(member, mtime))


def header(member: Member, mtime: int) -> bytes:
    """Return a member's header, including its pax header."""
    if _is_plain(member, mtime):
        return _plain_header(member.archive_path, member.is_folder, member.permissions, member.size, mtime)
    info = _info(portable_name(member.name), member.is_folder, member.permissions, mtime)
    if not member.is_folder:
        info.size = member.size
    made = _as_bytes(info)
    return made if info.size < _USTAR_SIZE_LIMIT else _with_size(made, info.size)


def header_of(shape: Shape, mtime: int) -> bytes:
    """Return the header of a member with this shape; faster than `header`."""
    path, is_folder, executable, size = shape
    if (
        len(path) > _SHORT_PATH
        or not path.isascii()
        or path[1:2] == b":"  # may get another name (`Member.name`)
        or size >= _USTAR_SIZE_LIMIT
        or mtime >= _USTAR_SIZE_LIMIT
    ):
        return header(_shaped(*shape), mtime)
    permissions = 0o755 if is_folder or executable else 0o644
    return _plain_header(path + b"/" if is_folder else path, is_folder, permissions, size, mtime)


def _with_size(made: bytes, size: int) -> bytes:
    """Write a size that octal digits do not hold into a header. tarfile leaves zero there and uses a pax record."""
    before, block = made[:-_BLOCK], made[-_BLOCK:]
    size_start, size_end, checksum_start, checksum_end = 124, 136, 148, 156
    field = (1 << 95 | size).to_bytes(size_end - size_start, "big")  # the highest bit marks base-256
    block = block[:size_start] + field + block[size_end:checksum_start] + b" " * 8 + block[checksum_end:]
    return before + block[:checksum_start] + b"%06o\0 " % sum(block) + block[checksum_end:]


def _is_plain(member: Member, mtime: int) -> bool:
    """Return True if ustar's fields hold everything."""
    name = member.name
    fits = len(name) + member.is_folder <= _USTAR_NAME_LIMIT and name.isascii()
    return fits and member.size < _USTAR_SIZE_LIMIT and mtime < _USTAR_SIZE_LIMIT


def _plain_header(name: bytes, is_folder: bool, permissions: int, size: int, mtime: int) -> bytes:
    """Return the same header as tarfile in a tenth of the time: only name, size and checksum differ between members.
    `name`: as in the archive."""
    between, behind, end, checksum = _template(is_folder, permissions, mtime)
    field = b"%011o" % size
    checksum += sum(name) + sum(field)
    return b"".join((name.ljust(_USTAR_NAME_LIMIT, b"\0"), between, field, behind, b"%06o\0 " % checksum, end))


@functools.lru_cache(maxsize=64)
def _template(is_folder: bool, permissions: int, mtime: int) -> tuple[bytes, bytes, bytes, int]:
    """Return the parts of a header between name and size, between size and checksum, and behind the checksum. Return
    also their sum for the checksum. The checksum's own bytes count as blanks."""
    made = _as_bytes(_info("-", is_folder, permissions, mtime))
    parts = made[100:124], made[135:148], made[156:]
    return (*parts, sum(map(sum, parts)) + 8 * ord(" "))


def _info(name: str, is_folder: bool, permissions: int, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = permissions
    info.mtime = mtime
    if is_folder:
        info.type = tarfile.DIRTYPE
    return info


def _as_bytes(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


class _Header:
    """A header that is made on read: making it takes some microseconds, and a large model has many."""

    __slots__ = ("_member", "_mtime", "length")

    def __init__(self, member: Member, mtime: int) -> None:
        self._member = member
        self._mtime = mtime
        self.length = header_length(member, mtime)

    def read_into(self, views: Views, offset: int) -> None:
        copy_into(views, header(self._member, self._mtime), offset)


def padding_length(size: int) -> int:
    """Return the number of zeros after `size` bytes of content."""
    return -size % _BLOCK


def end_length(content: int) -> int:
    """Return the number of zeros after `content` bytes of members."""
    ended = content + 2 * _BLOCK
    return 2 * _BLOCK + -ended % tarfile.RECORDSIZE
