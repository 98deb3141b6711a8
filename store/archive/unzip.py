"""zip archives as they arrive: members are unpacked one after another, and the directory at the end has the last word.

While all goes as writers of zips have it (each member right behind the one before, sizes in its header or found by
decompressing) nothing waits for the end. A running digest of what the local headers said is then compared with the same
digest of the directory: equal digests mean that every member is in it, as it was unpacked, in the same order, and no
other. If they differ (links, which only the directory tells; members that were deleted; another order), everything is
unpacked again as the directory has it.

Refused: encryption, methods that `zipfile` does not know either, members that overlap (the zip bombs of David Fifield),
sizes and checksums that are not those of the content.

Threading: one thread an archive.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import stat
import struct
from array import array
from collections.abc import Iterator

from isal import igzip_lib

from store.archive.arriving import LITTLE_MEMORY, MOST_MEMORY, ArrivingFile
from store.archive.checksum import crc32
from store.archive.decode import Decoder, decode, decoded
from store.archive.source import Source
from store.archive.target import Target, Writer
from store.archive.zip_records import (
    CENTRAL,
    END,
    END64,
    END_LENGTH,
    LOCAL,
    LOCATOR64,
    LOCATOR64_LENGTH,
    MAX_COMMENT,
    MAX_PADDING,
    Entry,
    read_central,
    read_descriptor,
    read_end,
    read_local,
)
from store.errors import DamagedArchiveError, NotAModelError, TooBigError, UnsafeMemberError
from store.text import printable

_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14
_LZMA_HAS_END = 0x2  # flag: the data ends with a mark
_COPIED = 1 << 20  # bytes copied at a time
_SHARED = 1 << 20  # bytes from which on stored content is not read here, but copied from file to file
_LITTLE_DICTIONARY = 8 << 20  # bytes
_MAX_TARGET = 4096  # bytes of a link's target


def unzip(arriving: ArrivingFile, target: Target) -> None:
    """Unpack a zip archive.

    Raises:
        NotAModelError: it is encrypted, or compressed by an unknown method.
        DamagedArchiveError: it is cut short, or does not hold together.
        UnsafeMemberError, TooBigError, CancelledError, StoreError: as `store.archive.extract.extract`.
    """
    source = Source(arriving)
    target.archive_read = lambda: source.position
    try:
        is_done = _unpack_as_it_comes(source, target)
    except UnsafeMemberError:  # perhaps a member that was replaced or deleted, and only left there
        is_done = False
    if not is_done:
        target.restart()
        _unpack_by_directory(arriving, target)


def _unpack_as_it_comes(source: Source, target: Target) -> bool:
    """Unpack members one after another; False if only the directory can tell what the archive holds."""
    unpacked, count = hashlib.sha256(), 0
    while (signature := _peek(source)) == LOCAL:
        entry = read_local(source)
        _refuse_unknown(entry)
        if entry.has_descriptor and (entry.method == _STORED or (entry.method == _LZMA and not _lzma_ends(entry))):
            return False
        entry = _unpack(source, entry, target)
        _note(unpacked, entry)
        count += 1
    if signature not in (CENTRAL, END, END64):
        if len(signature) < 4:
            raise DamagedArchiveError("the archive is cut short: the zip's directory at its end is missing")
        return False
    start = source.position
    listed, listed_count = hashlib.sha256(), 0
    while _peek(source) == CENTRAL:
        entry = read_central(source)
        _note(listed, entry)
        listed_count += 1
        if listed_count > count or entry.is_link or _is_special(entry):
            return False
        if entry.mode & 0o100 and not entry.is_folder and not target.make_executable(entry.name):
            return False
    length = source.position - start
    return listed.digest() == unpacked.digest() and read_end(source) == (start, length, count)


def _note(digest: hashlib._Hash, entry: Entry) -> None:
    """Add to a digest what the local header and the directory must agree on."""
    name = entry.name.encode("utf-8", "surrogateescape")
    numbers = struct.pack("<QHLQQL", entry.offset, entry.method, entry.crc32, entry.compressed, entry.size, len(name))
    digest.update(numbers + name)


def _unpack(source: Source, entry: Entry, target: Target) -> Entry:
    """Unpack the member whose content begins at the source's place; gives what is known of it then."""
    if entry.is_folder:
        _, checked = _read_small(source, entry, 0)
        target.folder(entry.name)
        return checked
    with target.file(entry.name, bool(entry.mode & 0o100)) as file:
        start = source.position
        if entry.method == _STORED:
            _copy(source, entry, file)
            size = entry.size
        else:
            size = 0
            for chunk in _content(source, entry):
                size += len(chunk)
                if size > entry.size and not entry.has_descriptor:
                    raise _wrong_size(entry)
                file.write(memoryview(chunk))
        checked = _checked(source, entry, start, size)
        file.expected_crc32 = checked.crc32
    return checked


def _read_small(source: Source, entry: Entry, limit: int) -> tuple[bytes, Entry]:
    """The content of a member that is no file."""
    start = source.position
    content = bytearray()
    for chunk in _content(source, entry):
        content += chunk
        if len(content) > limit:
            raise UnsafeMemberError(f"the archive holds {printable(entry.name)!r}, no file, with content of a file")
    checked = _checked(source, entry, start, len(content))
    if crc32(content) != checked.crc32:
        raise DamagedArchiveError(f"the archive is damaged: the CRC-32 of {printable(entry.name)!r} is wrong")
    return bytes(content), checked


def _checked(source: Source, entry: Entry, start: int, size: int) -> Entry:
    """A member as it is known once its content has been read, which began at `start` and came to `size` bytes."""
    compressed = source.position - start
    if entry.has_descriptor:
        checksum = read_descriptor(source, entry, compressed, size)
        return entry._replace(crc32=checksum, compressed=compressed, size=size)
    if (compressed, size) != (entry.compressed, entry.size):
        raise _wrong_size(entry)
    return entry


def _copy(source: Source, entry: Entry, file: Writer) -> None:
    """Copy stored content."""
    if entry.compressed != entry.size:
        raise _wrong_size(entry)
    left = entry.size
    descriptor = source.arriving.fileno() if entry.size >= _SHARED else None
    while left:
        if descriptor is not None:
            count = min(left, _COPIED)
            if not source.has_all(count):
                raise _cut_within(entry)
            file.copy_range(descriptor, source.position, count)
            source.position += count
        else:
            chunk = source.some(min(left, _COPIED))
            if not chunk:
                raise _cut_within(entry)
            file.write(memoryview(chunk).toreadonly())
            count = len(chunk)
        left -= count


def _content(source: Source, entry: Entry) -> Iterator[bytes | bytearray]:
    """The content of a member, decompressed; the source then stands behind it."""
    end = None if entry.has_descriptor else source.position + entry.compressed
    limited = Source(source.arriving, source.position, end)
    try:
        if entry.method == _STORED:
            while chunk := limited.some(_COPIED):
                yield chunk
            if limited.position != end:
                raise _cut_within(entry)
        else:
            for part in decoded(limited, _decoder(limited, entry), "zip"):
                source.position = limited.position
                yield part
    finally:
        source.position = limited.position


def _decoder(source: Source, entry: Entry) -> Decoder:
    if entry.method == _DEFLATED:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    if entry.method == _BZIP2:
        source.arriving.take_memory(LITTLE_MEMORY)
        return bz2.BZ2Decompressor()
    head = source.exactly(4)
    properties = source.exactly(int.from_bytes(head[2:], "little"))
    if len(properties) != 5:
        raise DamagedArchiveError(f"the archive is damaged: LZMA's properties of {printable(entry.name)!r} are wrong")
    # The header of an .lzma file before the same data, so that the size, or else the mark at the end, ends it.
    size = (1 << 64) - 1 if _lzma_ends(entry) else entry.size
    dictionary = int.from_bytes(properties[1:], "little")
    source.arriving.take_memory(LITTLE_MEMORY if dictionary <= _LITTLE_DICTIONARY else MOST_MEMORY)
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MOST_MEMORY)
    decode(decoder, properties + size.to_bytes(8, "little"), "LZMA")
    return decoder


def _unpack_by_directory(arriving: ArrivingFile, target: Target) -> None:
    """Unpack what the directory lists, once all is there."""
    source = Source(arriving)
    directory = read_end(_find_end(arriving))
    if directory.members > target.max_members:
        raise TooBigError(f"the archive holds more than {target.max_members:,} files and folders")
    _refuse_overlaps(arriving, directory.offset, directory.members)
    place = Source(arriving, directory.offset)
    length = arriving.length()
    target.archive_read = lambda: length
    for _ in range(directory.members):
        entry = read_central(place)
        _refuse_unknown(entry)
        source.position = entry.offset
        local = read_local(source)
        if (local.raw_name, local.method, local.is_encrypted) != (entry.raw_name, entry.method, entry.is_encrypted):
            raise DamagedArchiveError(
                f"the archive is damaged: {printable(entry.name)!r} has another name or method in the zip's directory"
            )
        # The directory's sizes hold, so nothing needs to be looked for behind the content.
        entry = entry._replace(flags=entry.flags & ~0x8)
        if entry.is_link:
            content, _ = _read_small(source, entry, _MAX_TARGET)
            target.symlink(entry.name, content.decode("utf-8", "surrogateescape"))
        elif _is_special(entry):
            raise UnsafeMemberError(f"the archive holds {printable(entry.name)!r}, a device, pipe or socket")
        else:
            _unpack(source, entry, target)
    if place.position != directory.offset + directory.length:
        raise DamagedArchiveError("the archive is damaged: the zip's directory is not as long as it says")


def _find_end(arriving: ArrivingFile) -> Source:
    """The place of the records at the end."""
    length = arriving.length()
    start = max(0, length - MAX_COMMENT - END_LENGTH - MAX_PADDING)
    tail = Source(arriving, start).exactly(length - start)
    found = len(tail)
    while (found := tail.rfind(END, 0, found)) >= 0:
        comment = tail[found + END_LENGTH - 2 : found + END_LENGTH]
        end = found + END_LENGTH + int.from_bytes(comment, "little")
        if end <= len(tail) and not any(tail[end:]):
            place = start + found
            locator = Source(arriving, max(0, place - LOCATOR64_LENGTH)).exactly(LOCATOR64_LENGTH)
            if locator.startswith(LOCATOR64):
                place = int.from_bytes(locator[8:16], "little")
            return Source(arriving, place)
    raise DamagedArchiveError("the archive is cut short: the zip's directory at its end is missing")


def _refuse_overlaps(arriving: ArrivingFile, directory: int, count: int) -> None:
    """No two members may share bytes, nor lie in the directory."""
    place, source = Source(arriving, directory), Source(arriving)
    starts, ends = array("Q"), array("Q")
    for _ in range(count):
        entry = read_central(place)
        source.position = entry.offset
        starts.append(entry.offset)
        ends.append(entry.offset + read_local(source).length + entry.compressed)
    order: range | list[int] = range(count)
    if any(starts[at] > starts[at + 1] for at in range(count - 1)):
        order = sorted(order, key=starts.__getitem__)
    end = 0
    for at in order:
        if starts[at] < end:
            raise DamagedArchiveError("the archive is damaged: members of the zip overlap")
        end = ends[at]
    if end > directory:
        raise DamagedArchiveError("the archive is damaged: a member of the zip overlaps its directory")


def _refuse_unknown(entry: Entry) -> None:
    name = printable(entry.name)
    if entry.is_encrypted:
        raise NotAModelError(f"the archive is encrypted ({name!r} is): make it without a password")
    if entry.method not in (_STORED, _DEFLATED, _BZIP2, _LZMA):
        raise NotAModelError(
            f"the archive holds {name!r} compressed by method {entry.method}, which is not known here: use deflate"
        )


def _lzma_ends(entry: Entry) -> bool:
    return bool(entry.flags & _LZMA_HAS_END)


def _is_special(entry: Entry) -> bool:
    return stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)


def _peek(source: Source) -> bytes:
    signature = source.exactly(4)
    source.position -= len(signature)
    return signature


def _wrong_size(entry: Entry) -> DamagedArchiveError:
    return DamagedArchiveError(f"the archive is damaged: {printable(entry.name)!r} is not as long as the zip says")


def _cut_within(entry: Entry) -> DamagedArchiveError:
    return DamagedArchiveError(f"the archive is cut short within {printable(entry.name)!r}")
