"""Detection of an archive's kind by its first bytes.

Magic bytes: The .xz File Format 1.1.0 (2.1.1.1), RFC 1952, RFC 8878, bzip2's source, PKWARE APPNOTE 4.3. A tar is
recognized by its first header's checksum.
"""

from __future__ import annotations

import enum

from bentofs.store.formats.read.tar_header import BLOCK, is_header

XZ_MAGIC = b"\xfd7zXZ\x00"
GZIP_MAGIC = b"\x1f\x8b"
BZIP2_MAGIC = b"BZh"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")  # the first block, or the end of an empty stream
_ZIP_RECORDS = (b"PK\x03\x04", b"PK\x05\x06")
_SPLIT_ZIP, _ONE_PART_ZIP = b"PK\x07\x08", b"PK00"  # before the first member of a zip that is, or was planned, in parts


class ArchiveKind(enum.Enum):
    """The kind of a file, by its first bytes."""

    XZ = "xz"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    ZSTD = "zstd"
    ZIP = "zip"
    TAR = "tar"
    UNKNOWN = "unknown"


def kind_of(head: bytes) -> ArchiveKind:
    """Return the kind of a file that begins with `head`: its first 512 bytes, or all of a shorter file."""
    if head.startswith(XZ_MAGIC):
        return ArchiveKind.XZ
    if head.startswith(GZIP_MAGIC):
        return ArchiveKind.GZIP
    if head.startswith(BZIP2_MAGIC) and head[4:10] in _BZIP2_BLOCKS:
        return ArchiveKind.BZIP2
    if head.startswith(ZSTD_MAGIC) or is_skippable(head):
        return ArchiveKind.ZSTD
    if head.removeprefix(_SPLIT_ZIP).removeprefix(_ONE_PART_ZIP).startswith(_ZIP_RECORDS):
        return ArchiveKind.ZIP
    if is_header(head[:BLOCK]) or (len(head) >= BLOCK and not any(head)):  # or an empty tar
        return ArchiveKind.TAR
    return ArchiveKind.UNKNOWN


def is_skippable(head: bytes) -> bool:
    """Tell whether a skippable frame of zstd begins so."""
    return len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == _ZSTD_SKIPPABLE
