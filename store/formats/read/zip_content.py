"""The content of zip members: stored, or compressed by deflate, bzip2 or LZMA.

Threading: one thread per archive.
"""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Iterator

from isal import igzip_lib

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.cursor import Cursor
from bentofs.store.formats.read.decode import Decoder, decode, decoded
from bentofs.store.formats.read.growing_file import LITTLE_MEMORY, MOST_MEMORY
from bentofs.store.formats.read.sink import Writer
from bentofs.store.formats.read.zip_records import ZipEntry
from bentofs.store.util.buffer_pool import BufferPool
from bentofs.store.util.display import printable

STORED = 0
_DEFLATED, _BZIP2, _LZMA = 8, 12, 14
METHODS = (STORED, _DEFLATED, _BZIP2, _LZMA)
_LZMA_HAS_END = 0x2  # flag: the data ends with an end mark
_COPIED = 1 << 20  # bytes copied at a time
_LITTLE = 128 << 10  # bytes: less than this takes no buffer of a pool
_LITTLE_DICTIONARY = 8 << 20  # bytes


def copy_stored(cursor: Cursor, entry: ZipEntry, file: Writer) -> None:
    """Copy stored content."""
    if entry.compressed != entry.size:
        raise wrong_size(entry)
    left, buffers = entry.size, BufferPool()
    while left:
        chunk = cursor.some_into(buffers.take()[:left] if left > _LITTLE else memoryview(bytearray(left)))
        if not chunk:
            raise _cut_within(entry)
        file.write(chunk.toreadonly())
        left -= len(chunk)
        del chunk  # or its buffer would not come back before the next one is taken


def content_of(cursor: Cursor, entry: ZipEntry, end: int | None) -> Iterator[bytes | bytearray]:
    """Yield the decompressed content of a member. Leave the cursor after it."""
    limited = Cursor(cursor.arriving, cursor.position, end)
    try:
        if entry.method == STORED:
            while chunk := limited.some(_COPIED):
                yield chunk
            if limited.position != end:
                raise _cut_within(entry)
        else:
            for part in decoded(limited, _decoder(limited, entry), "zip"):
                cursor.position = limited.position
                yield part
    finally:
        cursor.position = limited.position


def _decoder(cursor: Cursor, entry: ZipEntry) -> Decoder:
    if entry.method == _DEFLATED:
        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE)
    if entry.method == _BZIP2:
        cursor.arriving.take_memory(LITTLE_MEMORY)
        return bz2.BZ2Decompressor()
    head = cursor.exactly(4)
    properties = cursor.exactly(int.from_bytes(head[2:], "little"))
    if len(properties) != 5:
        raise DamagedArchiveError.damaged(f"LZMA's properties of {printable(entry.name)!r} are wrong")
    # Put the header of an .lzma file before the same data. Then the size or the end mark ends it.
    size = (1 << 64) - 1 if _lzma_ends(entry) else entry.size
    dictionary = int.from_bytes(properties[1:], "little")
    cursor.arriving.take_memory(LITTLE_MEMORY if dictionary <= _LITTLE_DICTIONARY else MOST_MEMORY)
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MOST_MEMORY)
    decode(decoder, properties + size.to_bytes(8, "little"), "LZMA")
    return decoder


def ends_itself(entry: ZipEntry) -> bool:
    """Tell whether decompression finds the content's end. Its size may be missing or cut off at 32 bits."""
    if entry.has_descriptor:
        return entry.method != STORED and (entry.method != _LZMA or _lzma_ends(entry))
    return not entry.is_zip64 and entry.method in (_DEFLATED, _BZIP2)


def _lzma_ends(entry: ZipEntry) -> bool:
    return bool(entry.flags & _LZMA_HAS_END)


def wrong_size(entry: ZipEntry) -> DamagedArchiveError:
    return DamagedArchiveError.damaged(f"{printable(entry.name)!r} is not as long as the zip says")


def _cut_within(entry: ZipEntry) -> DamagedArchiveError:
    return DamagedArchiveError.cut_short(f"it ends within {printable(entry.name)!r}")
