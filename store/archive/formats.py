"""Formats: what archives there are, by the suffix of their file names, and how each is laid out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, cast

from store.archive import bzip2, xz_blocks
from store.archive.checksum import crc32, crc32_combine
from store.archive.chunk_maker import ChunkMaker
from store.archive.chunks import Chunks, Codec, Measured, put_in_order
from store.archive.deflate import END, SMALL, chunk_codec, codec_name, run_codec, small_codec
from store.archive.gzip import gzip_length, lay_out_gzip, lay_out_gzip_of
from store.archive.members import Deflated, Member, Packing
from store.archive.pieces import Literal, Piece, PieceList, Slice
from store.archive.tar import end_length, header, lay_out_tar, padding_length, tar_length, tar_spans
from store.archive.xz import lay_out_xz, xz_length
from store.archive.zip import lay_out_zip, zip_length

LAYOUT_VERSION = 1  # raised whenever the bytes of any format change


class MeasuredPiece(Piece, Protocol):
    """A file's content that knows its own CRC-32."""

    def crc32(self) -> int:
        """The CRC-32 of the whole; may have to read it."""

    def learn_ahead(self, count: int) -> bool:
        """Read up to `count` bytes of what that has to; False if that is of no use any more."""


class Unit(NamedTuple):
    """A range of some content that becomes one chunk."""

    content: Piece
    start: int
    stop: int


class Compressor(Protocol):
    """What it takes to compress one archive."""

    @property
    def maker(self) -> ChunkMaker:
        """Makes its chunks."""

    def measure(self, part: str, codec: Codec, units: Iterable[Unit]) -> Measured:
        """What is known of one part of the archive's chunks; measured now unless it is known.

        Raises:
            SourceChangedError, StoreUnreadableError: as reading does.
            CancelledError: the process ends.
        """


class Format(NamedTuple):
    """One kind of archive."""

    name: str  # as `--formats` and `by-format/` have it; with a dot before it, the suffix of file names
    needs_checksums: bool  # whether members' contents must be MeasuredPieces
    # Nothing compressed: of members and mtime, the bytes by arithmetic, and the archive. bzip2 cannot.
    length: Callable[[Sequence[Member], int], int] | None
    lay_out: Callable[[Sequence[Member], int], PieceList] | None
    # Compressed, the members as their `packing` says. A tar is not.
    compress: Callable[[Sequence[Member], int, Compressor], PieceList] | None = None
    codec: Callable[[], str] | None = None  # names what the compressed bytes depend on, beside the content

    @property
    def suffix(self) -> str:
        return f".{self.name}"


def _lay_out_tar_xz(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_xz(lay_out_tar(members, mtime))


def _tar_xz_length(members: Sequence[Member], mtime: int) -> int:
    return xz_length(tar_length(members, mtime))


def _compress_tar_xz(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    tar, codec = lay_out_tar(members, mtime), xz_blocks.codec()
    measured = compressor.measure("tar", codec, _units(tar, 0, tar.length, codec))
    return xz_blocks.lay_out_xz_blocks(tar, compressor.maker, measured)


def _compress_tar_bz2(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    tar, codec = lay_out_tar(members, mtime), bzip2.codec()
    measured = compressor.measure("tar", codec, _units(tar, 0, tar.length, codec))
    return bzip2.lay_out_bzip2(tar, compressor.maker, measured)


def _lay_out_tar_gz(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_gzip(lay_out_tar(members, mtime), _tar_checksum(members, mtime))


def _compress_tar_gz(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    """Headers and small files in runs, large files in the chunks that a zip has, too, and what is stored between."""
    tar, codec = lay_out_tar(members, mtime), run_codec()
    stretches = list(_stretches(members, mtime, tar.length))
    runs = compressor.measure(
        "runs",
        codec,
        (unit for start, stop, how, _ in stretches if how is Packing.SMALL for unit in _units(tar, start, stop, codec)),
    )
    parts: list[Chunks | Slice] = []
    first = 0
    for start, stop, how, content in stretches:
        if isinstance(how, Deflated) and content is not None:
            parts.append(Chunks(compressor.maker, chunk_codec(how.effort), content, how.measured))
        elif how is Packing.SMALL:
            run = Chunks(compressor.maker, codec, tar, runs, start, stop, first)
            parts.append(run)
            first += run.count
        else:
            parts.append(Slice(tar, start, stop - start))
    put_in_order([part for part in parts if isinstance(part, Chunks)])
    return lay_out_gzip_of(parts, tar, _tar_checksum(members, mtime))


class _Stretch(NamedTuple):
    """What goes into a compressed tar in one way."""

    start: int
    stop: int
    how: Packing | Deflated
    content: Piece | None = None  # if it is a file's alone


def _stretches(members: Sequence[Member], mtime: int, length: int) -> Iterator[_Stretch]:
    """What goes into a compressed tar of this length in which way; each stretch as long as can be."""
    begin, how, last = 0, Packing.SMALL, 0
    for member, start, content, end in tar_spans(members, mtime):
        small = member.size < SMALL
        wanted = Packing.STORED if small and member.content and member.packing is Packing.STORED else Packing.SMALL
        if wanted is not how:
            if start > begin:
                yield _Stretch(begin, start, how)
            begin, how = start, wanted
        if not small and member.packing is not Packing.SMALL:
            yield _Stretch(begin, content, how)
            yield _Stretch(content, content + member.size, member.packing, member.content)
            begin = content + member.size
        last = end
    if how is not Packing.SMALL:
        yield _Stretch(begin, last, how)
        begin = last
    yield _Stretch(begin, length, Packing.SMALL)


def _units(content: Piece, start: int, stop: int, codec: Codec) -> Iterator[Unit]:
    for at in range(start, stop, codec.chunk):
        yield Unit(content, at, min(at + codec.chunk, stop))


def _lay_out_zip(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_zip(members, mtime, _content_crc32, _learn_ahead)


def _compress_zip(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    codec = small_codec()
    small = [member.content for member in members if member.content and member.packing is Packing.SMALL]
    measured = compressor.measure("small", codec, (Unit(content, 0, content.length) for content in small))
    numbers = iter(range(len(small)))
    in_order: list[Chunks] = []

    def pack(member: Member) -> Sequence[Piece]:
        if member.content is None:
            return ()
        if isinstance(member.packing, Deflated):
            chunks = Chunks(
                compressor.maker, chunk_codec(member.packing.effort), member.content, member.packing.measured
            )
            in_order.append(chunks)
            return (chunks, Literal(END))
        if member.packing is Packing.SMALL:
            chunks = Chunks(compressor.maker, codec, member.content, measured, first=next(numbers))
            if chunks.length < member.size:
                in_order.append(chunks)
                return (chunks,)
        return (member.content,)

    archive = lay_out_zip(members, mtime, _content_crc32, _learn_ahead, pack)
    put_in_order(in_order)
    return archive


def _xz_codec() -> str:
    return xz_blocks.codec().name


def _tar_checksum(members: Sequence[Member], mtime: int) -> Callable[[], int]:
    return functools.cache(lambda: _tar_crc32(members, mtime))


def _tar_crc32(members: Sequence[Member], mtime: int) -> int:
    """The CRC-32 of a whole tar, put together from its members'."""
    crc = length = 0
    for member in members:
        head = header(member, mtime)
        crc = crc32(head, crc)
        length += len(head) + member.size
        if member.content is not None:
            crc = crc32_combine(crc, _content_crc32(member), member.size)
        padding = padding_length(member.size)
        crc = crc32(bytes(padding), crc)
        length += padding
    return crc32(bytes(end_length(length)), crc)


def _content_crc32(member: Member) -> int:
    return cast("MeasuredPiece", member.content).crc32()


def _learn_ahead(member: Member, count: int) -> bool:
    return cast("MeasuredPiece", member.content).learn_ahead(count)


BENTOMODEL = Format("bentomodel", False, _tar_xz_length, _lay_out_tar_xz, _compress_tar_xz, _xz_codec)
TAR = Format("tar", False, tar_length, lay_out_tar)
TAR_GZ = Format(
    "tar.gz",
    True,
    lambda members, mtime: gzip_length(tar_length(members, mtime)),
    _lay_out_tar_gz,
    _compress_tar_gz,
    codec_name,
)
ZIP = Format("zip", True, zip_length, _lay_out_zip, _compress_zip, codec_name)
TAR_XZ = Format("tar.xz", False, _tar_xz_length, _lay_out_tar_xz, _compress_tar_xz, _xz_codec)
TAR_BZ2 = Format("tar.bz2", False, None, None, _compress_tar_bz2, lambda: bzip2.codec().name)

FORMATS = {known.name: known for known in (BENTOMODEL, TAR, TAR_GZ, ZIP, TAR_XZ, TAR_BZ2)}
DEFAULT_FORMATS = (BENTOMODEL, TAR, TAR_GZ, ZIP)  # the others cost long compressing before their sizes are known
