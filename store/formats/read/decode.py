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
from bentofs.store.formats.read.cursor import Source, cut_short, trailing
from bentofs.store.formats.read.detect import BZIP2_MAGIC, GZIP_MAGIC, XZ_MAGIC, Kind
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
        return Stream(source, zstd_content(source))
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
                raise cut_short(f"its {what} data has no end")
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
        if error.args == _memory_limit_args():
            raise _too_much_memory(what) from None
        raise DamagedArchiveError(f"the archive is damaged: {what} says '{error}'") from None


@functools.cache
def _memory_limit_args() -> tuple[object, ...]:
    """Return the arguments of liblzma's error for a memory limit that is too low. Its errors have no code to tell."""
    try:
        lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1).decompress(lzma.compress(b"x"))
    except lzma.LZMAError as error:
        return error.args
    raise AssertionError("liblzma ignores its memory limit")


def _xz(source: Source) -> Iterator[bytes | memoryview]:
    while True:
        if is_laid_out_here(source):
            yield from stored_content(source)
        else:
            yield from _xz_stream(source)
        if _skip_zeros(source) % 4:
            raise DamagedArchiveError("the archive is damaged: the padding after its xz data is cut short")
        if not _goes_on(source, XZ_MAGIC, "xz"):
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
        if not _goes_on(source, GZIP_MAGIC, "gzip"):
            return


def _bzip2(source: Source) -> Iterator[bytes]:
    source.arriving.take_memory(LITTLE_MEMORY)
    while True:
        yield from decoded(source, bz2.BZ2Decompressor(), "bzip2")
        if not _goes_on(source, BZIP2_MAGIC, "bzip2"):
            return


def _goes_on(source: Source, magic: bytes, what: str) -> bool:
    """Tell whether another stream begins at the source's place. Zeros may follow the last one: tapes pad files."""
    if source.peek(len(magic)) == magic:
        return True
    _skip_zeros(source)
    if source.some(1):
        raise trailing(what)
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


def _too_much_memory(what: str) -> TooBigError:
    return TooBigError(
        f"the archive needs more than {MOST_MEMORY >> 20} MiB to decompress: make it with a lower level of {what}"
    )
