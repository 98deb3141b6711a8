"""Reading of the header of a gzip member (RFC 1952, 2.3).

ISA-L takes a valid header for damaged if it arrives in parts and has several fields or a checksum.

Threading: one thread per cursor.
"""

from __future__ import annotations

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.read.cursor import Cursor, cut_short

PLAIN = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # a header without fields, given to ISA-L instead
_FIXED = 10  # bytes that every header has
_DEFLATE = 8
_CHECKSUM, _EXTRA, _NAME, _COMMENT, _RESERVED = 0x02, 0x04, 0x08, 0x10, 0xE0
_READ = 256  # bytes
_LOSS = "its gzip data has no end"
_MAX_TEXT = 64 << 10  # bytes of a name or comment


def pass_header(cursor: Cursor) -> None:
    """Skip to the deflate data of the member that begins at the cursor.

    Raises:
        DamagedArchiveError: it is no header, or is cut short, or its checksum is wrong.
        CancelledError: see `ArrivingFile.read_into`.
    """
    header = cursor.whole(_FIXED, _LOSS)
    method, flags = header[2], header[3]
    if method != _DEFLATE or flags & _RESERVED:
        raise DamagedArchiveError.damaged("its gzip data is of a kind that does not exist")
    if flags & _EXTRA:
        length = cursor.whole(2, _LOSS)
        header += length + cursor.whole(int.from_bytes(length, "little"), _LOSS)
    for field in (_NAME, _COMMENT):
        if flags & field:
            header += _text(cursor)
    if flags & _CHECKSUM and int.from_bytes(cursor.whole(2, _LOSS), "little") != crc32(header) & 0xFFFF:
        raise DamagedArchiveError.damaged("the checksum of a gzip header is wrong")


def _text(cursor: Cursor) -> bytes:
    """Read a text including the zero that ends it."""
    taken = bytearray()
    while (end := taken.find(0)) < 0:
        some = cursor.some(_READ)
        if not some:
            raise cut_short(_LOSS)
        if len(taken) > _MAX_TEXT:
            raise DamagedArchiveError.damaged("a text in a gzip header has no end")
        taken += some
    cursor.position -= len(taken) - (end + 1)
    return bytes(taken[: end + 1])
