"""Formats: the kinds of archives by the suffix of their file names, and the layout of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from bentofs.store.formats.crc32 import crc32, crc32_combine
from bentofs.store.formats.pieces import Piece, PieceList, read_bytes
from bentofs.store.formats.write import bzip2, xz_blocks
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Codec, Measured
from bentofs.store.formats.write.deflate import codec_name
from bentofs.store.formats.write.gzip import gzip_length, lay_out_gzip, lay_out_gzip_of
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.packing import ZipPacker, lay_out_deflate
from bentofs.store.formats.write.small_files import FILES, RUNS, SmallFiles
from bentofs.store.formats.write.tar import end_length, header, lay_out_tar, padding_length, tar_length
from bentofs.store.formats.write.xz import lay_out_xz, xz_length
from bentofs.store.formats.write.zip import lay_out_zip, zip_length

LAYOUT_VERSION = 2  # increase it when the bytes of any format change
_TAR = "tar"  # the only part of a tar that is compressed as a whole


class MeasuredPiece(Piece, Protocol):
    """A file's content that knows its own CRC-32."""

    def crc32(self) -> int:
        """Return the CRC-32 of the whole content. May have to read it."""

    def learn_ahead(self, count: int) -> bool:
        """Read up to `count` bytes for `crc32` in advance. Return False if that is of no more use."""


# Called with parts: reads the contents of their chunks now, in order within each part.
Contents = Callable[[Collection[str]], Iterable[tuple[str, memoryview]]]


class Compressor(Protocol):
    """The tools to compress one archive."""

    @property
    def maker(self) -> ChunkMaker:
        """Return the maker of its chunks."""

    def measure(self, part: str, codecs: Mapping[str, Codec], contents: Contents) -> Measured:
        """Return the measurement of one part of the archive's chunks. Measure it now if it is not known.

        That also measures the other parts in `codecs` that other archives of the model will want.

        Raises:
            SourceChangedError, StoreUnreadableError: the read failed.
            CancelledError: the process ends.
        """


class Format(NamedTuple):
    """One kind of archive."""

    name: str  # as in `--formats` and `by-format/`; with a dot in front, the suffix of file names
    needs_checksums: bool  # true if members' contents must be MeasuredPieces
    # Not compressed: take members and mtime, give the length in bytes and the archive. bzip2 has neither.
    length: Callable[[Sequence[Member], int], int] | None
    lay_out: Callable[[Sequence[Member], int], PieceList] | None
    # Compressed: packs each member by its `packing`. None for a tar.
    compress: Callable[[Sequence[Member], int, Compressor], PieceList] | None = None
    codec: Callable[[], str] | None = None  # names everything the compressed bytes depend on, except the content
    part: str = _TAR  # the part that is measured, in addition to large files

    @property
    def suffix(self) -> str:
        return f".{self.name}"


def _lay_out_tar_xz(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_xz(lay_out_tar(members, mtime))


def _tar_xz_length(members: Sequence[Member], mtime: int) -> int:
    return xz_length(tar_length(members, mtime))


def _compress_tar_xz(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    tar = lay_out_tar(members, mtime)
    return xz_blocks.lay_out_xz_blocks(tar, compressor.maker, _measure_tar(tar, xz_blocks.codec(), compressor))


def _compress_tar_bz2(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    tar = lay_out_tar(members, mtime)
    return bzip2.lay_out_bzip2(tar, compressor.maker, _measure_tar(tar, bzip2.codec(), compressor))


def _measure_tar(tar: Piece, codec: Codec, compressor: Compressor) -> Measured:
    contents = (
        (_TAR, memoryview(read_bytes(tar, start, stop - start))) for _, start, stop in codec.units(tar, 0, tar.length)
    )
    return compressor.measure(_TAR, {_TAR: codec}, lambda _: contents)


def _lay_out_tar_gz(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_gzip(lay_out_tar(members, mtime), _tar_checksum(members, mtime))


def _compress_tar_gz(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    """Compress headers and small files in runs, and large files in the same chunks as a zip. Store the rest."""
    small = SmallFiles(members, mtime)
    runs = compressor.measure(RUNS, small.codecs(), small.chunks)
    stream = lay_out_deflate(small.stretches, small.tar, compressor.maker, runs)
    return lay_out_gzip_of(stream, small.tar, _tar_checksum(members, mtime))


def _lay_out_zip(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_zip(members, mtime, _content_crc32, _learn_ahead)


def _compress_zip(members: Sequence[Member], mtime: int, compressor: Compressor) -> PieceList:
    small = SmallFiles(members, mtime)
    packer = ZipPacker(compressor.maker, compressor.measure(FILES, small.codecs(), small.chunks))
    return lay_out_zip(members, mtime, _content_crc32, _learn_ahead, packer)


def _xz_codec() -> str:
    return xz_blocks.codec().name


def _tar_checksum(members: Sequence[Member], mtime: int) -> Callable[[], int]:
    return functools.cache(lambda: _tar_crc32(members, mtime))


def _tar_crc32(members: Sequence[Member], mtime: int) -> int:
    """Return the CRC-32 of a whole tar, combined from its members' CRC-32s."""
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
    RUNS,
)
ZIP = Format("zip", True, zip_length, _lay_out_zip, _compress_zip, codec_name, FILES)
TAR_XZ = Format("tar.xz", False, _tar_xz_length, _lay_out_tar_xz, _compress_tar_xz, _xz_codec)
TAR_BZ2 = Format("tar.bz2", False, None, None, _compress_tar_bz2, lambda: bzip2.codec().name)

FORMATS = {known.name: known for known in (BENTOMODEL, TAR, TAR_GZ, ZIP, TAR_XZ, TAR_BZ2)}
DEFAULT_FORMATS = (BENTOMODEL, TAR, TAR_GZ, ZIP)  # the others must compress for long before their sizes are known
