"""The central directory of a zip, read from its end: its place, its entries and the places of the members.

A writer without zip64 cuts numbers off at 32 bits. They are restored: a local header with the same name confirms an
offset, and the space up to the next member limits the content's length.

Threading: one thread per archive.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from bentofs.store.errors import DamagedArchiveError, TooBigError
from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.read.cursor import Cursor, cut_short
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.formats.read.zip_records import (
    END,
    END_LENGTH,
    LOCATOR64,
    LOCATOR64_LENGTH,
    MAX_COMMENT,
    MAX_TRAILING,
    NO_DIRECTORY,
    WRAP16,
    WRAP32,
    Directory,
    ZipEntry,
    may_follow,
    read_central,
    read_end,
    read_local,
)
from bentofs.store.util.display import printable

_READ = 1 << 20  # bytes read at a time
_MAX_GUESSES = 256  # places to search for a member that is not after the one before: enough for 1 TiB


class ZipMembers:
    """The members that the directory lists, in its order."""

    def __init__(self, arriving: ArrivingFile, max_members: int) -> None:
        """Wait for the whole archive, then find the directory and read all of it.

        Raises:
            DamagedArchiveError: it is missing or inconsistent, or members overlap.
            TooBigError: there are more than `max_members`.
        """
        self._arriving = arriving
        self._directory = _find_directory(arriving)
        self._starts = array("Q")  # of the local headers
        ends = array("Q")
        for entry in self._records(max_members):
            start, end = self._place(entry, ends[-1] if ends else 0)
            self._starts.append(start)
            ends.append(end)
        self._refuse_overlaps(ends)
        self._in_order = self._starts if self._is_in_order() else array("Q", sorted(self._starts))

    def __iter__(self) -> Iterator[tuple[ZipEntry, int]]:
        """Yield each member and the farthest end of its content."""
        for entry, start in zip(self._records(len(self._starts)), self._starts, strict=True):
            after = bisect_right(self._in_order, start)
            room = self._in_order[after] if after < len(self._in_order) else self._directory.offset
            yield entry._replace(offset=start), room

    def _records(self, most: int) -> Iterator[ZipEntry]:
        directory = self._directory
        place, end = Cursor(self._arriving, directory.offset), directory.offset + directory.length
        count = 0
        while count < directory.members or (not directory.is_zip64 and place.position < end):
            if count >= most:
                raise TooBigError(f"the archive holds more than {most:,} files and directories")
            yield read_central(place)
            count += 1
        if place.position != end or (count - directory.members) % WRAP16:
            raise DamagedArchiveError.damaged("the zip's directory is not as long as it says")

    def _place(self, entry: ZipEntry, behind: int) -> tuple[int, int]:
        """Return the start of a member and its least end. `behind`: the end of the one before."""
        last = self._directory.offset
        if entry.is_zip64 or last <= WRAP32:
            return self._try(entry, entry.offset)
        others = range(entry.offset, min(last, _MAX_GUESSES * WRAP32), WRAP32)
        guesses = [at_or_behind(entry.offset, behind), *others]
        for number, guess in enumerate(guesses):
            try:
                return self._try(entry, guess)
            except DamagedArchiveError:
                if number == len(guesses) - 1:
                    raise
        raise AssertionError

    def _try(self, entry: ZipEntry, offset: int) -> tuple[int, int]:
        local = read_local(Cursor(self._arriving, offset))
        if (local.raw_name, local.method, local.is_encrypted) != (entry.raw_name, entry.method, entry.is_encrypted):
            raise DamagedArchiveError.damaged(
                f"{printable(entry.name)!r} has another name or method in the zip's directory"
            )
        return offset, offset + local.length + entry.compressed

    def _is_in_order(self) -> bool:
        return all(self._starts[at] <= self._starts[at + 1] for at in range(len(self._starts) - 1))

    def _refuse_overlaps(self, ends: array[int]) -> None:
        """Refuse members that share bytes with each other or with the directory."""
        order: range | list[int] = range(len(ends))
        if not self._is_in_order():
            order = sorted(order, key=self._starts.__getitem__)
        end = 0
        for at in order:
            if self._starts[at] < end:
                raise DamagedArchiveError.damaged("members of the zip overlap")
            end = ends[at]
        if end > self._directory.offset:
            raise DamagedArchiveError.damaged("a member of the zip overlaps its directory")


def at_or_behind(stated: int, least: int) -> int:
    """Return the smallest number from `least` on that equals `stated` when cut off at 32 bits."""
    return least + (stated - least) % WRAP32


def stored_length(arriving: ArrivingFile, entry: ZipEntry, start: int, room: int) -> int:
    """Return the length in bytes of stored content that begins at `start` and ends by `room`.

    If the stated size may be cut off, the CRC-32 decides.
    """
    length, crc = 0, 0
    cursor = Cursor(arriving, start)
    for whole in range(entry.size, room - start + 1, WRAP32):
        while length < whole and (chunk := cursor.some(min(_READ, whole - length))):
            crc = crc32(chunk, crc)
            length += len(chunk)
        if crc == entry.crc32:
            return length
    return entry.size


def has_end(arriving: ArrivingFile) -> bool:
    """Wait for the whole archive and tell whether it has an end record."""
    try:
        _find_end(arriving)
    except DamagedArchiveError:
        return False
    return True


def _find_directory(arriving: ArrivingFile) -> Directory:
    end = _find_end(arriving)
    place = end.position
    directory = read_end(end)
    offset = place - directory.length
    if directory.is_zip64 or offset < WRAP32 or offset % WRAP32 != directory.offset:
        return directory
    return directory._replace(offset=offset)


def _find_end(arriving: ArrivingFile) -> Cursor:
    """Return the place of the end records."""
    length = arriving.length()
    start = max(0, length - MAX_COMMENT - END_LENGTH - MAX_TRAILING)
    tail = Cursor(arriving, start).exactly(length - start)
    found, loose = len(tail), -1
    while (found := tail.rfind(END, 0, found)) >= 0:
        comment = tail[found + END_LENGTH - 2 : found + END_LENGTH]
        end = found + END_LENGTH + int.from_bytes(comment, "little")
        if end <= len(tail) and not any(tail[end:]):
            break
        if loose < 0 and end < len(tail) and may_follow(tail[end:]):
            loose = found
    found = loose if found < 0 else found
    if found < 0:
        raise cut_short(NO_DIRECTORY)
    place = start + found
    locator = Cursor(arriving, max(0, place - LOCATOR64_LENGTH)).exactly(LOCATOR64_LENGTH)
    if locator.startswith(LOCATOR64):
        place = int.from_bytes(locator[8:16], "little")
    return Cursor(arriving, place)
