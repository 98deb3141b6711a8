"""Simple writers of every format, for comparison: whole archives in memory, in one pass, from the specs.

They import nothing of the library but `Member`, and hold the layout's free choices (chunk lengths) as plain numbers.
"""

import datetime
import io
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bentofs.store.formats.write.members import Member
from tests.store.content import Memory

_END_OF_2107 = (2107, 12, 31, 23, 59, 58)


def name_of(member: Member) -> str:
    """Return the path, changed only if it begins like a Windows drive: BentoML refuses such a path."""
    return f"./{member.path}" if re.match("[A-Za-z]:", member.path) else member.path


def content_of(member: Member) -> bytes:
    if member.content is None:
        return b""
    assert isinstance(member.content, Memory)
    return member.content.content


def write_tar(members: Sequence[Member], mtime: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for member in members:
            info = tarfile.TarInfo(name_of(member))
            info.mtime = mtime
            info.mode = 0o755 if member.is_folder or member.executable else 0o644
            info.type = tarfile.DIRTYPE if member.is_folder else tarfile.REGTYPE
            info.size = len(content_of(member))
            archive.addfile(info, io.BytesIO(content_of(member)))
    return buffer.getvalue()


def zip_info(member: Member, mtime: int, name: str) -> zipfile.ZipInfo:
    """Return zipfile's information to write a member like bentofs."""
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=min(mtime, 2**33))
    date = moment.timetuple()[:6]
    date_time = (1980, 1, 1, 0, 0, 0) if date[0] < 1980 else _END_OF_2107 if date[0] > 2107 else date
    info = zipfile.ZipInfo(name, date_time)
    if mtime < 2**31:
        info.extra = struct.pack("<2sHBl", b"UT", 5, 1, mtime)
    info.create_system = 3
    info.external_attr = 0o40755 << 16 | 0x10 if member.is_folder else 0o100644 << 16
    if member.executable and not member.is_folder:
        info.external_attr = 0o100755 << 16
    info.compress_type = zipfile.ZIP_STORED
    return info


@contextmanager
def zip64_where_needed() -> Iterator[None]:
    """Make zipfile write zip64 fields only where a number needs them. By default it begins at 2 GiB."""
    limits = {"ZIP64_LIMIT": 0xFFFFFFFE, "ZIP_FILECOUNT_LIMIT": 0xFFFE}
    before = {name: getattr(zipfile, name) for name in limits}
    try:
        for name, limit in limits.items():
            setattr(zipfile, name, limit)
        yield
    finally:
        for name, limit in before.items():
            setattr(zipfile, name, limit)


def write_zip(members: Sequence[Member], mtime: int) -> bytes:
    """Write a zip with `zipfile`. It cannot write a name that is not UTF-8: an ASCII name of equal length stands in for
    it."""
    stand_ins: dict[bytes, bytes] = {}
    buffer = io.BytesIO()
    with zip64_where_needed(), zipfile.ZipFile(buffer, "w") as archive:
        for number, member in enumerate(members):
            raw = name_of(member).encode("utf-8", "surrogateescape") + (b"/" if member.is_folder else b"")
            try:
                name = raw.decode()
            except UnicodeDecodeError:
                name = f"<stand-in {number:06}>".ljust(len(raw) - 1, ">") + ("/" if member.is_folder else ">")
                assert len(name) == len(raw), "names that are not UTF-8 must be of 18 bytes or more here"
                stand_ins[name.encode()] = raw
            archive.writestr(zip_info(member, mtime, name), content_of(member))
    written = buffer.getvalue()
    for name_bytes, raw in stand_ins.items():
        written = written.replace(name_bytes, raw)
    return written


def write_gzip(content: bytes, starts: Sequence[int] = (0,)) -> bytes:
    """Write RFC 1952 around stored blocks of RFC 1951: 65,531 bytes a block, counted from each of `starts`, and at
    least one block behind every 64th of the last ones."""
    parts = []
    for start, stop in zip(starts, [*starts[1:], len(content)], strict=True):
        parts += [content[at : min(at + 65531, stop)] for at in range(start, stop, 65531)]
    if (len(content) - starts[-1]) % (64 * 65531) == 0:
        parts.append(b"")
    out = bytearray(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
    for number, part in enumerate(parts):
        final = number == len(parts) - 1
        out += bytes([final]) + len(part).to_bytes(2, "little") + (0xFFFF - len(part)).to_bytes(2, "little") + part
    return bytes(out + struct.pack("<II", zlib.crc32(content), len(content) % 2**32))


def multibyte(value: int) -> bytes:
    """Encode a multibyte integer: The .xz File Format, section 1.2."""
    digits = [value >> shift & 0x7F for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes(digit | 0x80 for digit in digits[:-1]) + bytes(digits[-1:])


def _with_crc(fields: bytes) -> bytes:
    return fields + struct.pack("<I", zlib.crc32(fields))


def write_xz(content: bytes, starts: Sequence[int] = (0,)) -> bytes:
    """Write The .xz File Format: blocks of 4,194,087 bytes of content, each in LZMA2 chunks of 65,533 bytes, counted
    from each of `starts`."""
    out = bytearray(b"\xfd7zXZ\0" + _with_crc(b"\0\1"))
    index = bytearray()
    count = 0
    ends = [*starts[1:], len(content)]
    places = [at for start, end in zip(starts, ends, strict=True) for at in range(start, end, 4_194_087)]
    for start, end in zip(places, [*places[1:], len(content)], strict=True):
        block = content[start:end]
        data = bytearray()
        for at in range(0, len(block), 65_533):
            chunk = block[at : at + 65_533]
            data += bytes([2 if at else 1]) + (len(chunk) - 1).to_bytes(2, "big") + chunk
        data += b"\0"
        fields = b"\xc0" + multibyte(len(data)) + multibyte(len(block)) + b"\x21\x01\x08"
        length = 1 + len(fields) + 4
        length += -length % 4
        header = _with_crc((bytes([length // 4 - 1]) + fields).ljust(length - 4, b"\0"))
        out += header + data + bytes(-len(data) % 4) + struct.pack("<I", zlib.crc32(block))
        index += multibyte(len(header) + len(data) + 4) + multibyte(len(block))
        count += 1
    index[:0] = b"\0" + multibyte(count)
    index += bytes(-len(index) % 4)
    out += _with_crc(bytes(index))
    backward = struct.pack("<I", len(index) // 4) + b"\0\1"  # (length with its CRC) / 4 - 1
    return bytes(out + struct.pack("<I", zlib.crc32(backward)) + backward + b"YZ")


def _in_parts(write: Callable[[bytes, Sequence[int]], bytes]) -> Callable[[Sequence[Member], int], bytes]:
    """Write the tar in stored chunks, which begin anew after the first member and at contents of 1 MiB or more."""

    def written(members: Sequence[Member], mtime: int) -> bytes:
        tar = write_tar(members, mtime)
        with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
            infos = archive.getmembers()
        starts = [
            info.offset_data if info.size >= 1_048_576 else info.offset
            for number, info in enumerate(infos)
            if info.size >= 1_048_576 or number == 1
        ]
        return write(tar, [0, *starts])

    return written


WRITERS: dict[str, Callable[[Sequence[Member], int], bytes]] = {
    "tar": write_tar,
    "zip": write_zip,
    "tar.gz": _in_parts(write_gzip),
    "bentomodel": _in_parts(write_xz),
    "tar.xz": _in_parts(write_xz),
}
