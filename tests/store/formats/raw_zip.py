"""zips put together byte by byte, like those of writers that Python's zipfile does not imitate."""

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

WRAP16, WRAP32 = 1 << 16, 1 << 32


class RawMember(NamedTuple):
    """A member in its written form."""

    name: bytes
    content: bytes = b""  # the bytes in the file, compressed
    size: int | None = None  # decompressed size, if different
    crc32: int | None = None
    method: int = 0
    flags: int = 0
    made_by: int = 3  # Unix
    mode: int = 0o100644
    extra: bytes = b""


def stored(name: str | bytes, content: bytes = b"", **fields: object) -> RawMember:
    """Return a member that is not compressed."""
    raw = name.encode() if isinstance(name, str) else name
    return RawMember(raw, content)._replace(**fields)  # type: ignore[arg-type]


def deflated(name: str | bytes, content: bytes, **fields: object) -> RawMember:
    """Return a compressed member with its sizes in a descriptor, like macOS's Archive Utility writes it."""
    raw = name.encode() if isinstance(name, str) else name
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed = packer.compress(content) + packer.flush()
    member = RawMember(raw, packed, len(content), zlib.crc32(content), zlib.DEFLATED, flags=0x8)
    return member._replace(**fields)  # type: ignore[arg-type]


def local_part(member: RawMember, size: int, packed: int, crc: int, wrap: int = WRAP32) -> tuple[bytes, bytes]:
    """Return the local header and the descriptor of a member."""
    has_descriptor = bool(member.flags & 0x8)
    numbers = (crc, packed % wrap, size % wrap)
    header = struct.pack(
        "<4s5H3L2H",
        b"PK\3\4",
        20,
        member.flags,
        member.method,
        0,
        0x21,
        *((0, 0, 0) if has_descriptor else numbers),
        len(member.name),
        len(member.extra),
    )
    descriptor = struct.pack("<4s3L", b"PK\7\10", *numbers) if has_descriptor else b""
    return header + member.name + member.extra, descriptor


def central_part(member: RawMember, size: int, packed: int, crc: int, offset: int, wrap: int = WRAP32) -> bytes:
    """Return a member's record in the central directory."""
    fixed = struct.pack(
        "<4s6H3L5H2L",
        b"PK\1\2",
        member.made_by << 8 | 21,
        20,
        member.flags,
        member.method,
        0,
        0x21,
        crc,
        packed % wrap,
        size % wrap,
        len(member.name),
        len(member.extra),
        0,
        0,
        0,
        member.mode << 16,
        offset % wrap,
    )
    return fixed + member.name + member.extra


def end_part(count: int, length: int, offset: int, wrap: int = WRAP32) -> bytes:
    """Return the end record."""
    counts = (count % WRAP16, count % WRAP16)
    return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *counts, length % wrap, offset % wrap, 0)


def raw_zip(members: Iterable[RawMember], before: bytes = b"", behind: bytes = b"", wrap: int = WRAP32) -> bytes:
    """Return a zip of these members, between other bytes. Offsets count from its very start. All numbers are cut off at
    `wrap`, like those of a writer without zip64."""
    archive, directory, count = bytearray(before), bytearray(), 0
    for member in members:
        size = len(member.content) if member.size is None else member.size
        crc = zlib.crc32(member.content) if member.crc32 is None else member.crc32
        directory += central_part(member, size, len(member.content), crc, len(archive), wrap)
        header, descriptor = local_part(member, size, len(member.content), crc, wrap)
        archive += header + member.content + descriptor
        count += 1
    end = end_part(count, len(directory), len(archive), wrap)
    return bytes(archive + directory + end + behind)
