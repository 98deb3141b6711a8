"""Decompression of an archive to a forward-only stream, in bounded memory.

Consecutive streams count as one, like in their own tools. Bytes outside any stream, and an end in the middle of a
stream, are damage.

Threading: one thread per stream. Decoders release the interpreter lock and work on less than 1 MiB at a time.
"""

from __future__ import annotations

import bz2
import functools
import lzma
from collections.abc import Iterator
from typing import Protocol

from isal import igzip_lib

from bentofs.store.errors import DamagedArchiveError, TooBigError
from bentofs.store.formats.read.cursor import Cursor, cut_short, trailing
from bentofs.store.formats.read.detect import BZIP2_MAGIC, GZIP_MAGIC, XZ_MAGIC, ArchiveKind
from bentofs.store.formats.read.growing_file import LITTLE_MEMORY, MOST_MEMORY, ArrivingFile
from bentofs.store.formats.read.gzip_header import PLAIN, pass_header
from bentofs.store.formats.read.stream import PlainStream, Stream
from bentofs.store.formats.read.xz import is_laid_out_here, stored_content
from bentofs.store.formats.read.zstd import zstd_content

_INPUT = 128 << 10  # bytes given to a decoder at once: larger buffers would be allocated by the system each time
_FIRST_INPUT = 4 << 10  # bytes given to a new decoder: it may end at once and leave the rest to the next one
_OUTPUT = 128 << 10  # bytes taken from a decoder at once
_IsalError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]
_ERRORS = (lzma.LZMAError, _IsalError, OSError, EOFError, ValueError)  # raised by decoders for data they cannot read


class Decoder(Protocol):
    """The common interface of the decoders of lzma, bz2 and isal."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def open_stream(arriving: ArrivingFile, kind: ArchiveKind) -> Stream:
    """Return the decompressed content of a file of any kind except zip.

    Reading the stream raises:
        DamagedArchiveError: the bytes do not match their checksums, go on after their end, or end too early.
        TooBigError: the decoder needs too much memory.
        CancelledError: see `ArrivingFile.read_into`.
    """
    cursor = Cursor(arriving)
    if kind is ArchiveKind.XZ:
        return Stream(cursor, _xz(cursor))
    if kind is ArchiveKind.GZIP:
        return Stream(cursor, _gzip(cursor))
    if kind is ArchiveKind.BZIP2:
        return Stream(cursor, _bzip2(cursor))
    if kind is ArchiveKind.ZSTD:
        return Stream(cursor, zstd_content(cursor))
    return PlainStream(cursor)


def decoded(cursor: Cursor, decoder: Decoder, what: str) -> Iterator[bytes]:
    """Yield the content of the stream that begins at the cursor. Leave the cursor at the stream's end.

    Raises, while iterated:
        DamagedArchiveError, TooBigError, CancelledError: see `open_stream`.
    """
    size = _FIRST_INPUT
    while not decoder.eof:
        data = b""
        if decoder.needs_input:
            data = bytes(cursor.some(size))
            size = min(2 * size, _INPUT)
            if not data:
                raise cut_short(f"its {what} data has no end")
        if chunk := decode(decoder, data, what):
            yield chunk
    cursor.position -= len(decoder.unused_data)


def decode(decoder: Decoder, data: bytes, what: str) -> bytes:
    """Give bytes to a decoder and return a limited part of its output. Raises the same errors as `decoded`."""
    try:
        return decoder.decompress(data, _OUTPUT)
    except MemoryError:
        raise _too_much_memory(what) from None
    except _ERRORS as error:
        if error.args == _memory_limit_args():
            raise _too_much_memory(what) from None
        raise DamagedArchiveError.damaged(f"{what} says '{error}'") from None


@functools.cache
def _memory_limit_args() -> tuple[object, ...]:
    """Return the arguments of liblzma's error for a memory limit that is too low. Its errors have no code to tell."""
    try:
        lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1).decompress(lzma.compress(b"x"))
    except lzma.LZMAError as error:
        return error.args
    raise AssertionError("liblzma ignores its memory limit")


def _xz(cursor: Cursor) -> Iterator[bytes | memoryview]:
    while True:
        if is_laid_out_here(cursor):
            yield from stored_content(cursor)
        else:
            yield from _xz_stream(cursor)
        if _skip_zeros(cursor) % 4:
            raise DamagedArchiveError.damaged("the padding after its xz data is cut short")
        if not _goes_on(cursor, XZ_MAGIC, "xz"):
            return


def _xz_stream(cursor: Cursor) -> Iterator[bytes]:
    """Yield the content of one stream. Try with little memory; if that is not enough, decode again with the most."""
    start, given = cursor.position, 0
    limit = cursor.arriving.take_memory(LITTLE_MEMORY)
    try:
        for chunk in decoded(cursor, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limit), "xz"):
            given += len(chunk)
            yield chunk
        return
    except TooBigError:
        if limit >= MOST_MEMORY:
            raise
    limit = cursor.arriving.take_memory(MOST_MEMORY)
    cursor.position = start
    for chunk in decoded(cursor, lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limit), "xz"):
        known = min(given, len(chunk))
        given -= known
        if known < len(chunk):
            yield chunk[known:]


def _gzip(cursor: Cursor) -> Iterator[bytes]:
    while True:
        pass_header(cursor)
        decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        decode(decoder, PLAIN, "gzip")
        yield from decoded(cursor, decoder, "gzip")
        if not _goes_on(cursor, GZIP_MAGIC, "gzip"):
            return


def _bzip2(cursor: Cursor) -> Iterator[bytes]:
    cursor.arriving.take_memory(LITTLE_MEMORY)
    while True:
        yield from decoded(cursor, bz2.BZ2Decompressor(), "bzip2")
        if not _goes_on(cursor, BZIP2_MAGIC, "bzip2"):
            return


def _goes_on(cursor: Cursor, magic: bytes, what: str) -> bool:
    """Tell whether another stream begins at the cursor. Zeros may follow the last one: tapes pad files."""
    if cursor.peek(len(magic)) == magic:
        return True
    _skip_zeros(cursor)
    if cursor.some(1):
        raise trailing(what)
    return False


def _skip_zeros(cursor: Cursor) -> int:
    """Skip to the next byte that is not zero. Return the number of zeros."""
    start = cursor.position
    while some := cursor.some(_INPUT):
        rest = bytes(some).lstrip(b"\0")
        if rest:
            cursor.position -= len(rest)
            break
    return cursor.position - start


def _too_much_memory(what: str) -> TooBigError:
    return TooBigError(
        f"the archive needs more than {MOST_MEMORY >> 20} MiB to decompress: make it with a lower level of {what}"
    )
