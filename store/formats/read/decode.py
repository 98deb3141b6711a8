"""Detection of an archive's kind, and decompression to a forward-only stream in bounded memory.

Magic bytes: The .xz File Format 1.1.0 (2.1.1.1), RFC 1952, RFC 8878, bzip2's source, PKWARE APPNOTE 4.3. A tar is
recognized by its first header's checksum. Consecutive streams count as one, like in their own tools. Bytes outside any
stream, and an end in the middle of a stream, are damage.

Threading: one thread per stream. Decoders release the interpreter lock and work on less than 1 MiB at a time.
"""

from __future__ import annotations

import bz2
import enum
import lzma
from collections.abc import Iterator
from typing import Protocol

import zstandard
from isal import igzip_lib

from bentofs.store.errors import DamagedArchiveError, NotAModelError, TooBigError
from bentofs.store.formats.read.cursor import Source
from bentofs.store.formats.read.growing_file import LITTLE_MEMORY, MOST_MEMORY, ArrivingFile
from bentofs.store.formats.read.gzip_header import PLAIN, pass_header
from bentofs.store.formats.read.tar_header import BLOCK, is_header
from bentofs.store.formats.read.xz import is_laid_out_here, stored_content

_LITTLE_WINDOW, _MAX_WINDOW = 8 << 20, 64 << 20  # bytes of the zstd window
_INPUT = 128 << 10  # bytes given to a decoder at once: larger buffers would be allocated by the system each time
_FIRST_INPUT = 4 << 10  # bytes given to a new decoder: it may end at once and leave the rest to the next one
_OUTPUT = 128 << 10  # bytes taken from a decoder at once
_XZ_MAGIC = b"\xfd7zXZ\x00"
_GZIP_MAGIC = b"\x1f\x8b"
_SPLIT_ZIP, _ONE_PART_ZIP = b"PK\x07\x08", b"PK00"  # before the first member of a zip that is, or was planned, in parts
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte from 0x50 to 0x5f
_ZSTD_BLOCK = 128 << 10  # bytes that a block may hold or expand to at most
_IsalError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
_ERRORS = (lzma.LZMAError, _IsalError, OSError, EOFError, ValueError)  # raised by decoders for data they cannot read


class Kind(enum.Enum):
    """The kind of a file, by its first bytes."""

    XZ = "xz"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    ZSTD = "zstd"
    ZIP = "zip"
    TAR = "tar"
    UNKNOWN = "unknown"


def kind_of(head: bytes) -> Kind:
    """Return the kind of a file that begins with `head`: its first 512 bytes, or all of a shorter file."""
    if head.startswith(_XZ_MAGIC):
        return Kind.XZ
    if head.startswith(_GZIP_MAGIC):
        return Kind.GZIP
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return Kind.BZIP2
    if head.startswith(_ZSTD_MAGIC) or _is_skippable(head):
        return Kind.ZSTD
    if head.removeprefix(_SPLIT_ZIP).removeprefix(_ONE_PART_ZIP).startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Kind.ZIP
    if is_header(head[:BLOCK]) or (len(head) >= BLOCK and not any(head)):  # or an empty tar
        return Kind.TAR
    return Kind.UNKNOWN


class Decoder(Protocol):
    """The common interface of the decoders of lzma, bz2 and isal."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class Stream:
    """A forward-only stream of bytes."""

    def __init__(self, source: Source, chunks: Iterator[bytes | bytearray | memoryview]) -> None:
        """`source`: the source of the chunks. Its position tells how much of the file was read."""
        self.source = source
        self._chunks = chunks
        self._rest = memoryview(b"")
        self.position = 0  # bytes taken so far

    def take(self, limit: int) -> memoryview:
        """Return the next bytes: at least one and at most `limit`, none at the end. They do not change later."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest = memoryview(chunk).toreadonly()
        taken, self._rest = self._rest[:limit], self._rest[limit:]
        self.position += len(taken)
        return taken

    def exactly(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end."""
        taken = bytes(self.take(count))
        while len(taken) < count and (more := self.take(count - len(taken))):
            taken += more
        return taken

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only at the end, without taking them."""
        start = self.position
        content = self.exactly(count)
        self._rest = memoryview(content + self._rest)
        self.position = start
        return content

    def skip(self, count: int) -> None:
        """Skip `count` bytes, fewer only at the end."""
        while count and (skipped := self.take(count)):
            count -= len(skipped)


class PlainStream(Stream):
    """The unchanged bytes of an arriving file. Skipped bytes are not read."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, iter(lambda: source.some(_INPUT), bytearray()))

    def skip(self, count: int) -> None:
        self.position += count
        if count <= len(self._rest):
            self._rest = self._rest[count:]
        else:
            self._rest = memoryview(b"")
            self.source.position = self.position


def open_stream(arriving: ArrivingFile, kind: Kind) -> Stream:
    """Return the decompressed content of a file of any kind except zip.

    Reading the stream raises:
        DamagedArchiveError: the bytes do not match their checksums, go on after their end, or end too early.
        TooBigError: the decoder needs too much memory.
        CancelledError: see `ArrivingFile.read_into`.
    """
    source = Source(arriving)
    if kind is Kind.XZ:
        return Stream(source, _xz(source))
    if kind is Kind.GZIP:
        return Stream(source, _gzip(source))
    if kind is Kind.BZIP2:
        return Stream(source, _bzip2(source))
    if kind is Kind.ZSTD:
        return Stream(source, _zstd(source))
    return PlainStream(source)


def decoded(source: Source, decoder: Decoder, what: str) -> Iterator[bytes]:
    """Yield the content of the stream that begins at the source's place. Leave the source at the stream's end.

    Raises, while iterated:
        DamagedArchiveError, TooBigError, CancelledError: see `open_stream`.
    """
    size = _FIRST_INPUT
    while not decoder.eof:
        data = b""
        if decoder.needs_input:
            data = bytes(source.some(size))
            size = min(2 * size, _INPUT)
            if not data:
                raise DamagedArchiveError(f"the archive is cut short: its {what} data has no end")
        if chunk := decode(decoder, data, what):
            yield chunk
    source.position -= len(decoder.unused_data)


def decode(decoder: Decoder, data: bytes, what: str) -> bytes:
    """Give bytes to a decoder and return a limited part of its output. Raises the same errors as `decoded`."""
    try:
        return decoder.decompress(data, _OUTPUT)
    except MemoryError:
        raise _too_much_memory(what) from None
    except _ERRORS as error:
        if "memory usage limit" in str(error).lower():
            raise _too_much_memory(what) from None
        raise DamagedArchiveError(f"the archive is damaged: {what} says '{error}'") from None


def _xz(source: Source) -> Iterator[bytes | memoryview]:
    while True:
        if is_laid_out_here(source):
            yield from stored_content(source)
        else:
            yield from _xz_stream(source)
        if _skip_zeros(source) % 4:
            raise DamagedArchiveError("the archive is damaged: the padding after its xz data is cut short")
        if not _goes_on(source, _XZ_MAGIC, "xz"):
            return


def _xz_stream(source: Source) -> Iterator[bytes]:
    """Yield the content of one stream. Try with little memory; if that is not enough, decode again with the most."""
    start, given = source.position, 0
    limit = source.arriving.take_memory(LITTLE_MEMORY)
    try:
        for chunk in decoded(source, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limit), "xz"):
            given += len(chunk)
            yield chunk
        return
    except TooBigError:
        if limit >= MOST_MEMORY:
            raise
    limit = source.arriving.take_memory(MOST_MEMORY)
    source.position = start
    for chunk in decoded(source, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limit), "xz"):
        known = min(given, len(chunk))
        given -= known
        if known < len(chunk):
            yield chunk[known:]


def _gzip(source: Source) -> Iterator[bytes]:
    while True:
        pass_header(source)
        decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        decode(decoder, PLAIN, "gzip")
        yield from decoded(source, decoder, "gzip")
        if not _goes_on(source, _GZIP_MAGIC, "gzip"):
            return


def _bzip2(source: Source) -> Iterator[bytes]:
    source.arriving.take_memory(LITTLE_MEMORY)
    while True:
        yield from decoded(source, bz2.BZ2Decompressor(), "bzip2")
        if not _goes_on(source, b"BZh", "bzip2"):
            return


def _goes_on(source: Source, magic: bytes, what: str) -> bool:
    """Tell whether another stream begins at the source's place. Zeros may follow the last one: tapes pad files."""
    head = source.exactly(len(magic))
    source.position -= len(head)
    if head == magic:
        return True
    _skip_zeros(source)
    if source.some(1):
        raise _trailing(what)
    return False


def _skip_zeros(source: Source) -> int:
    """Skip to the next byte that is not zero. Return the number of zeros."""
    start = source.position
    while some := source.some(_INPUT):
        rest = bytes(some).lstrip(b"\0")
        if rest:
            source.position -= len(rest)
            break
    return source.position - start


def _zstd(source: Source) -> Iterator[bytes]:
    """Decode block by block: the library cannot tell an end from a cut, and does not bound its output."""
    while head := source.exactly(4):
        if _is_skippable(head):
            length = int.from_bytes(_zstd_part(source, 4), "little")
            if length and not source.has_all(length):
                raise _zstd_cut()
            source.position += length
        elif head == _ZSTD_MAGIC:
            yield from _zstd_frame(source, head)
        else:
            raise _trailing("zstd")


def _zstd_frame(source: Source, magic: bytes) -> Iterator[bytes]:
    head = magic + _zstd_part(source, 1)
    try:
        # Read all bytes that may belong to the header; the frame's first block has at least three bytes.
        source.position -= len(head)
        head = source.exactly(18)
        length = zstandard.frame_header_size(head)
        frame = zstandard.get_frame_parameters(head)
        source.position += length - len(head)
        if frame.window_size > _MAX_WINDOW:
            raise TooBigError(
                f"the archive needs a zstd window of {frame.window_size >> 20:,} MiB, and {_MAX_WINDOW >> 20} MiB are "
                f"allowed: make it with --long={_MAX_WINDOW.bit_length() - 1} at most, and a level below 22"
            )
        if frame.dict_id:
            raise NotAModelError("the archive is compressed with a zstd dictionary, which is not in it")
        source.arriving.take_memory(LITTLE_MEMORY if frame.window_size <= _LITTLE_WINDOW else MOST_MEMORY)
        decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        yield decoder.decompress(head[:length])
        is_last = False
        while not is_last:
            header = _zstd_part(source, 3)
            fields = int.from_bytes(header, "little")
            is_last, kind, size = bool(fields & 1), fields >> 1 & 3, fields >> 3
            if size > _ZSTD_BLOCK:
                raise DamagedArchiveError("the archive is damaged: a zstd block is too long")
            yield decoder.decompress(header + _zstd_part(source, 1 if kind == 1 else size))
        if frame.has_checksum:
            yield decoder.decompress(_zstd_part(source, 4))
        if not decoder.eof:
            raise DamagedArchiveError("the archive is damaged: a zstd frame does not end where it says")
    except zstandard.ZstdError as error:
        raise DamagedArchiveError(f"the archive is damaged: zstd says '{error}'") from None


def _zstd_part(source: Source, count: int) -> bytes:
    part = source.exactly(count)
    if len(part) < count:
        raise _zstd_cut()
    return part


def _zstd_cut() -> DamagedArchiveError:
    return DamagedArchiveError("the archive is cut short: its zstd data has no end")


def _is_skippable(head: bytes) -> bool:
    return len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == _ZSTD_SKIPPABLE


def _trailing(what: str) -> DamagedArchiveError:
    return DamagedArchiveError(f"the archive is damaged: something that is not {what} follows its {what} data")


def _too_much_memory(what: str) -> TooBigError:
    return TooBigError(
        f"the archive needs more than {MOST_MEMORY >> 20} MiB to decompress: make it with a lower level of {what}"
    )
