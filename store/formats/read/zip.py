"""Unpacking of zip archives while they arrive, member by member. The central directory at the end decides.

Usually a member directly follows the one before, and its size is in its header or is found by decompression. Then
nothing waits for the end. A running digest of the local headers is compared with the same digest of the directory.
Equal digests mean that the directory lists exactly the unpacked members, in the same order. If they differ,
everything is unpacked again by the directory. Reasons are links (only the directory marks them), deleted members and
another order.

Refused: encryption, methods that `zipfile` does not support either, overlapping members (the zip bombs of David
Fifield), and sizes and checksums that do not match the content.

Threading: one thread per archive.
"""

from __future__ import annotations

import hashlib
import stat
import struct

from bentofs.store.errors import DamagedArchiveError, NotAModelError, UnsafeMemberError
from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.read.cursor import Cursor, cut_short
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.formats.read.sink import Sink
from bentofs.store.formats.read.zip_content import METHODS, STORED, content_of, copy_stored, ends_itself, wrong_size
from bentofs.store.formats.read.zip_directory import ZipMembers, at_or_behind, has_end, stored_length
from bentofs.store.formats.read.zip_records import (
    CENTRAL,
    END,
    END64,
    LOCAL,
    NO_DIRECTORY,
    ONE_PART_MARK,
    SPLIT_MARK,
    WRAP32,
    ZipEntry,
    congruent,
    read_central,
    read_descriptor,
    read_end,
    read_local,
)
from bentofs.store.util.display import printable

_MAX_TARGET = 4096  # bytes of a link's target


def unzip(arriving: ArrivingFile, target: Sink) -> None:
    """Unpack a zip archive.

    Raises:
        NotAModelError: it is encrypted, or compressed by an unknown method.
        DamagedArchiveError: it is cut short or inconsistent, or is one part of several.
        UnsafeMemberError, TooBigError, CancelledError, StoreError: see `store.formats.read.extract.extract`.
    """
    cursor = Cursor(arriving)
    target.archive_read = lambda: cursor.position
    mark = cursor.peek(4)
    if mark in (SPLIT_MARK, ONE_PART_MARK):
        cursor.position = len(mark)
    is_done, partial = False, None
    try:
        try:
            is_done = _unpack_as_it_comes(cursor, target)
        except UnsafeMemberError:  # perhaps only the leftover of a replaced or deleted member
            pass
        except _PartialError as error:
            partial = error.entry
        if not is_done:
            target.restart()
            _unpack_by_directory(arriving, target, partial)
    except DamagedArchiveError:
        if mark == SPLIT_MARK and not has_end(arriving):
            raise DamagedArchiveError(
                "the archive is one part of several of a zip, or cut short: join all parts, or copy it again"
            ) from None
        raise


def _unpack_as_it_comes(cursor: Cursor, target: Sink) -> bool:
    """Unpack members in the order of arrival. Return False if only the directory can tell the archive's content."""
    unpacked, count = hashlib.sha256(), 0
    large: dict[int, ZipEntry] = {}  # by number: members whose sizes do not fit in 32 bits
    while (signature := cursor.peek(4)) == LOCAL:
        entry = read_local(cursor)
        _refuse_unknown(entry)
        ends = ends_itself(entry)
        if entry.has_descriptor and not ends:
            return False
        end = None if ends else cursor.position + entry.compressed
        entry = _unpack(cursor, entry, target, end, is_listed=False)
        _note(unpacked, entry)
        if max(entry.size, entry.compressed) >= WRAP32:
            large[count] = entry
        count += 1
    if signature not in (CENTRAL, END, END64):
        if len(signature) < 4:
            raise cut_short(NO_DIRECTORY)
        return False
    start = cursor.position
    listed, listed_count, behind = hashlib.sha256(), 0, 0
    while cursor.peek(4) == CENTRAL:
        entry = _whole(read_central(cursor), large.get(listed_count), behind)
        behind = entry.offset + entry.compressed
        _note(listed, entry)
        listed_count += 1
        if listed_count > count or entry.is_link or _is_special(entry):
            return False
        if entry.mode & 0o100 and not entry.is_folder and not target.make_executable(entry.name):
            return False
    length = cursor.position - start
    return listed.digest() == unpacked.digest() and read_end(cursor).is_of(start, length, count)


def _whole(entry: ZipEntry, unpacked: ZipEntry | None, behind: int) -> ZipEntry:
    """Restore the numbers in a directory entry that may be cut off at 32 bits. `behind`: the end of the one before."""
    if entry.is_zip64:
        return entry
    if (
        unpacked
        and congruent(unpacked.size, entry.size, entry)
        and congruent(unpacked.compressed, entry.compressed, entry)
    ):
        entry = entry._replace(size=unpacked.size, compressed=unpacked.compressed)
    return entry._replace(offset=at_or_behind(entry.offset, behind))


def _note(digest: hashlib._Hash, entry: ZipEntry) -> None:
    """Add to a digest the fields on which the local header and the directory must agree."""
    name = entry.name.encode("utf-8", "surrogateescape")
    numbers = struct.pack("<QHLQQL", entry.offset, entry.method, entry.crc32, entry.compressed, entry.size, len(name))
    digest.update(numbers + name)


def _unpack(cursor: Cursor, entry: ZipEntry, target: Sink, end: int | None, *, is_listed: bool) -> ZipEntry:
    """Unpack the member whose content begins at the cursor. Return its entry, completed from the content.

    `end`: the end of the content; None if the content itself marks its end.
    `is_listed`: the numbers come from the directory.
    """
    if entry.is_folder:
        _, checked = _read_small(cursor, entry, 0, end)
        target.folder(entry.name)
        return checked
    with target.file(entry.name, bool(entry.mode & 0o100)) as file:
        start = cursor.position
        if entry.method == STORED:
            copy_stored(cursor, entry, file)
            size = entry.size
        else:
            size = 0
            for chunk in content_of(cursor, entry, end):
                size += len(chunk)
                if size > entry.size and not entry.has_descriptor and entry.is_zip64:
                    raise wrong_size(entry)
                file.write(memoryview(chunk))
        checked = _checked(cursor, entry, start, size)
        if not is_listed and _may_be_partial(checked) and cursor.peek(4) not in (LOCAL, CENTRAL):
            raise _PartialError(checked)
        file.expected_crc32 = checked.crc32
    return checked


def _read_small(cursor: Cursor, entry: ZipEntry, limit: int, end: int | None) -> tuple[bytes, ZipEntry]:
    """Read the content of a member that is no file."""
    start = cursor.position
    content = bytearray()
    for chunk in content_of(cursor, entry, end):
        content += chunk
        if len(content) > limit:
            raise UnsafeMemberError.in_archive(printable(entry.name), "which is not a file but has content")
    checked = _checked(cursor, entry, start, len(content))
    if crc32(content) != checked.crc32:
        raise DamagedArchiveError.damaged(f"the CRC-32 of {printable(entry.name)!r} is wrong")
    return bytes(content), checked


def _checked(cursor: Cursor, entry: ZipEntry, start: int, size: int) -> ZipEntry:
    """Return a member's entry, checked after its content was read: it began at `start` and has `size` bytes."""
    compressed = cursor.position - start
    if entry.has_descriptor:
        checksum = read_descriptor(cursor, entry, compressed, size)
        return entry._replace(crc32=checksum, compressed=compressed, size=size)
    if not (congruent(compressed, entry.compressed, entry) and congruent(size, entry.size, entry)):
        raise wrong_size(entry)
    return entry._replace(compressed=compressed, size=size)


def _unpack_by_directory(arriving: ArrivingFile, target: Sink, partial: ZipEntry | None) -> None:
    """Unpack the listed members, once all has arrived. The directory must agree with the numbers in `partial`."""
    cursor = Cursor(arriving)
    length = arriving.length()
    members = ZipMembers(arriving, target.max_members)
    target.archive_read = lambda: length
    for entry, room in members:
        _refuse_unknown(entry)
        if partial and partial.offset == entry.offset and _numbers(partial) != _numbers(entry):
            raise wrong_size(entry)
        cursor.position = entry.offset
        read_local(cursor)
        # The directory's sizes are used, so no data descriptor is needed after the content.
        entry = entry._replace(flags=entry.flags & ~0x8)
        end = cursor.position + entry.compressed
        if not entry.is_zip64 and room - end >= WRAP32:  # its size may be cut off
            if entry.method == STORED:
                size = stored_length(arriving, entry, cursor.position, room)
                entry = entry._replace(compressed=size, size=size)
                end = cursor.position + size
            else:
                end = room
        if entry.is_link:
            content, _ = _read_small(cursor, entry, _MAX_TARGET, end)
            target.symlink(entry.name, content.decode("utf-8", "surrogateescape"))
        elif _is_special(entry):
            raise UnsafeMemberError.in_archive(printable(entry.name), "a device, pipe or socket")
        else:
            _unpack(cursor, entry, target, end, is_listed=True)


def _refuse_unknown(entry: ZipEntry) -> None:
    name = printable(entry.name)
    if entry.is_encrypted:
        raise NotAModelError(f"the archive is encrypted ({name!r} is): make it without a password")
    if entry.method not in METHODS:
        raise NotAModelError(
            f"the archive holds {name!r} compressed by method {entry.method}, which is not known here: use deflate"
        )


class _PartialError(Exception):
    """Stored content goes on after the size in its local header. That size may be cut off at 32 bits."""

    def __init__(self, entry: ZipEntry) -> None:
        super().__init__(entry.name)
        self.entry = entry


def _may_be_partial(entry: ZipEntry) -> bool:
    return entry.method == STORED and not entry.is_zip64 and (entry.size, entry.crc32) != (0, 0)


def _numbers(entry: ZipEntry) -> tuple[int, int, int]:
    return entry.compressed, entry.size, entry.crc32


def _is_special(entry: ZipEntry) -> bool:
    return stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
