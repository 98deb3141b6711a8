"""Formats: the kinds of archives by the suffix of their file names, and the layout of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, cast

from bentofs.store.errors import BadLocationError
from bentofs.store.formats.crc32 import crc32, crc32_combine
from bentofs.store.formats.pieces import Piece, PieceList
from bentofs.store.formats.write import bzip2, xz_blocks
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.deflate import codec_name
from bentofs.store.formats.write.grid import grid_of
from bentofs.store.formats.write.gzip import gzip_length, lay_out_gzip, lay_out_gzip_of
from bentofs.store.formats.write.members import Member, Packing, Summed, shapes_of
from bentofs.store.formats.write.packing import ZipPacker, lay_out_deflate
from bentofs.store.formats.write.plan import Plan, Results, whole_tar
from bentofs.store.formats.write.small_files import FILES, RUNS, plan_small_files
from bentofs.store.formats.write.steps import IsDeflated, Step, steps_of_tar_gz, steps_of_zip
from bentofs.store.formats.write.tar import end_length, header_of, lay_out_tar, padding_length, tar_length
from bentofs.store.formats.write.xz import lay_out_xz, xz_length
from bentofs.store.formats.write.zip import lay_out_zip, zip_length

LAYOUT_VERSION = 3  # increase it when the bytes of any format change
_TAR = "tar"  # the only part of a tar that is compressed as a whole


class MeasuredPiece(Piece, Protocol):
    """A file's content that knows its own CRC-32."""

    def crc32(self) -> int:
        """Return the CRC-32 of the whole content. May have to read it."""

    def learn_ahead(self, count: int) -> bool:
        """Read up to `count` bytes for `crc32` in advance. Return False if that is of no more use."""


class Format(NamedTuple):
    """One kind of archive."""

    name: str  # as in `--formats` and `by-format/`; with a dot in front, the suffix of file names
    needs_checksums: bool  # true if members' contents must be MeasuredPieces
    # Not compressed: take members and mtime, give the length in bytes and the archive. bzip2 has neither.
    length: Callable[[Sequence[Member], int], int] | None
    lay_out: Callable[[Sequence[Member], int], PieceList] | None
    # Compressed: take members, mtime and packings, give the plan of what to measure; take that plan and its results,
    # give the archive. A tar has neither. `packings` is empty if the members are not packed one by one.
    plan: Callable[[Sequence[Member], int, Sequence[Packing]], Plan] | None = None
    compress: Callable[[Plan, Results, ChunkMaker], PieceList] | None = None
    codec: Callable[[], str] | None = None  # names everything the compressed bytes depend on, except the content
    part: str = _TAR  # the part that its plan wants
    # Takes that plan, and tells which large files are compressed: gives the archive but its end, while it is measured.
    steps: Callable[[Plan, IsDeflated], Iterator[Step]] | None = None

    @property
    def suffix(self) -> str:
        return f".{self.name}"


def _lay_out_tar_xz(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_xz(lay_out_tar(members, mtime), grid_of(members, mtime).starts)


def _tar_xz_length(members: Sequence[Member], mtime: int) -> int:
    starts, length = grid_of(members, mtime)
    return xz_length(length, starts)


def _plan_tar_xz(members: Sequence[Member], mtime: int, _packings: Sequence[Packing]) -> Plan:
    return whole_tar(members, mtime, _TAR, xz_blocks.codec())


def _compress_tar_xz(plan: Plan, results: Results, maker: ChunkMaker) -> PieceList:
    return xz_blocks.lay_out_xz_blocks(plan.tar, maker, results.chunks)


def _plan_tar_bz2(members: Sequence[Member], mtime: int, _packings: Sequence[Packing]) -> Plan:
    return whole_tar(members, mtime, _TAR, bzip2.codec())


def _compress_tar_bz2(plan: Plan, results: Results, maker: ChunkMaker) -> PieceList:
    return bzip2.lay_out_bzip2(plan.tar, maker, results.chunks)


def _tar_gz_length(members: Sequence[Member], mtime: int) -> int:
    starts, length = grid_of(members, mtime)
    return gzip_length(length, starts)


def _lay_out_tar_gz(members: Sequence[Member], mtime: int) -> PieceList:
    starts, _ = grid_of(members, mtime)
    return lay_out_gzip(lay_out_tar(members, mtime), _tar_checksum(members, mtime), starts)


def _plan_tar_gz(members: Sequence[Member], mtime: int, packings: Sequence[Packing]) -> Plan:
    return plan_small_files(members, mtime, packings, RUNS)


def _compress_tar_gz(plan: Plan, results: Results, maker: ChunkMaker) -> PieceList:
    """Compress headers and small files in runs, and large files in the same chunks as a zip. Store the rest."""
    stream = lay_out_deflate(plan, results, maker)
    return lay_out_gzip_of(stream, plan.tar, _tar_checksum(plan.members, plan.mtime))


def _lay_out_zip(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_zip(members, mtime, _content_crc32, _learn_ahead)


def _plan_zip(members: Sequence[Member], mtime: int, packings: Sequence[Packing]) -> Plan:
    return plan_small_files(members, mtime, packings, FILES)


def _compress_zip(plan: Plan, results: Results, maker: ChunkMaker) -> PieceList:
    packer = ZipPacker(maker, plan.packings, results)
    return lay_out_zip(plan.members, plan.mtime, _content_crc32, _learn_ahead, packer)


def _xz_codec() -> str:
    return xz_blocks.codec().name


def _tar_checksum(members: Sequence[Member], mtime: int) -> Callable[[], int]:
    return functools.cache(lambda: _tar_crc32(members, mtime))


def _tar_crc32(members: Sequence[Member], mtime: int) -> int:
    """Return the CRC-32 of a whole tar, combined from its members' CRC-32s."""
    summed = members if isinstance(members, Summed) else None
    crc = length = 0
    for number, shape in enumerate(shapes_of(members)):
        head, size = header_of(shape, mtime), shape[3]
        crc = crc32(head, crc)
        if size:
            known = summed.known_crc32(number) if summed is not None else None
            crc = crc32_combine(crc, _content_crc32(members[number]) if known is None else known, size)
        padding = padding_length(size)
        crc = crc32(bytes(padding), crc)
        length += len(head) + size + padding
    return crc32(bytes(end_length(length)), crc)


def _content_crc32(member: Member) -> int:
    return cast("MeasuredPiece", member.content).crc32()


def _learn_ahead(member: Member, count: int) -> bool:
    return cast("MeasuredPiece", member.content).learn_ahead(count)


BENTOMODEL = Format("bentomodel", False, _tar_xz_length, _lay_out_tar_xz, _plan_tar_xz, _compress_tar_xz, _xz_codec)
TAR = Format("tar", False, tar_length, lay_out_tar)
TAR_GZ = Format(
    "tar.gz",
    True,
    _tar_gz_length,
    _lay_out_tar_gz,
    _plan_tar_gz,
    _compress_tar_gz,
    codec_name,
    RUNS,
    steps_of_tar_gz,
)
ZIP = Format("zip", True, zip_length, _lay_out_zip, _plan_zip, _compress_zip, codec_name, FILES, steps_of_zip)
TAR_XZ = Format("tar.xz", False, _tar_xz_length, _lay_out_tar_xz, _plan_tar_xz, _compress_tar_xz, _xz_codec)
TAR_BZ2 = Format("tar.bz2", False, None, None, _plan_tar_bz2, _compress_tar_bz2, lambda: bzip2.codec().name)

FOLDER = "folder"  # the name of no archive: the model as a directory
FORMATS = {known.name: known for known in (BENTOMODEL, TAR, TAR_GZ, ZIP, TAR_XZ, TAR_BZ2)}
DEFAULT_FORMATS = (BENTOMODEL, TAR, TAR_GZ, ZIP)  # the others must compress for long before their sizes are known


def format_named(name: str) -> Format:
    """Return the format with this name.

    Raises:
        BadLocationError: there is none.
    """
    if name not in FORMATS:
        raise BadLocationError(f"{name!r} is not an archive format: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]
