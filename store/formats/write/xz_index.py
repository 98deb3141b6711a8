"""The index of an xz stream, with the footer after it (The .xz File Format 1.1.0, section 4)."""

from __future__ import annotations

import struct

from bentofs.store.formats.crc32 import crc32, crc32_combine, crc32_of_repeated
from bentofs.store.formats.pieces import Literal, Piece, Repeated

STREAM_FLAGS = b"\x00\x01"  # CRC-32
FOOTER_LENGTH = 12
_REPEATED = 64  # equal records in a row that are kept once


class IndexSums:
    """The number, length and CRC-32 of the records in an index: enough to check one."""

    def __init__(self) -> None:
        self.count = 0
        self.length = 0
        self.crc = 0

    def add(self, record: bytes, count: int = 1) -> None:
        """Add the same record `count` times."""
        self.count += count
        self.length += len(record) * count
        self.crc = crc32(record, self.crc) if count == 1 else crc32_of_repeated(record, count, self.crc)

    def ends(self) -> tuple[bytes, bytes]:
        """Return the bytes before the records, and those after them: padding, checksum and footer."""
        head = b"\x00" + number(self.count)
        length = len(head) + self.length
        padding = bytes(stored_length(length) - length)
        checksum = crc32(padding, crc32_combine(crc32(head), self.crc, self.length))
        backward = struct.pack("<I", (stored_length(length) + 4) // 4 - 1) + STREAM_FLAGS
        footer = struct.pack("<I", crc32(backward)) + backward + b"YZ"
        return head, padding + struct.pack("<I", checksum) + footer


class Index(IndexSums):
    """An index that is laid out."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[Piece] = []
        self._last = bytearray()  # the records after those pieces

    def add(self, record: bytes, count: int = 1) -> None:
        super().add(record, count)
        if count < _REPEATED:
            self._last += record * count
        else:
            self._pieces += [Literal(bytes(self._last)), Repeated(record, count)]
            self._last = bytearray()

    def pieces(self) -> list[Piece]:
        """Return the pieces of index and footer."""
        head, end = self.ends()
        return [Literal(head), *self._pieces, Literal(bytes(self._last) + end)]


def stored_length(length: int) -> int:
    """Round up to four bytes, like everything in xz."""
    return length + -length % 4


def number(value: int) -> bytes:
    """Encode a multibyte integer (section 1.2): seven bits a byte, low bits first."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
