"""Formats: what archives there are, by the suffix of their file names, and how each is laid out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

from store.archive.checksum import crc32, crc32_combine
from store.archive.gzip import gzip_length, lay_out_gzip
from store.archive.members import Member
from store.archive.pieces import Piece, PieceList
from store.archive.tar import end_length, header, lay_out_tar, padding_length, tar_length
from store.archive.xz import lay_out_xz, xz_length
from store.archive.zip import lay_out_zip, zip_length

LAYOUT_VERSION = 1  # raised whenever the bytes of any format change


class MeasuredPiece(Piece, Protocol):
    """A file's content that knows its own CRC-32."""

    def crc32(self) -> int:
        """The CRC-32 of the whole; may have to read it."""


class Format(NamedTuple):
    """One kind of archive."""

    name: str  # as `--formats` and `by-format/` have it; with a dot before it, the suffix of file names
    needs_checksums: bool  # whether members' contents must be MeasuredPieces
    length: Callable[[Sequence[Member], int], int]  # of members and mtime: bytes, by arithmetic
    lay_out: Callable[[Sequence[Member], int], PieceList]

    @property
    def suffix(self) -> str:
        return f".{self.name}"


def _lay_out_bentomodel(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_xz(lay_out_tar(members, mtime))


def _lay_out_tar_gz(members: Sequence[Member], mtime: int) -> PieceList:
    @functools.cache
    def crc() -> int:
        return _tar_crc32(members, mtime)

    return lay_out_gzip(lay_out_tar(members, mtime), crc)


def _lay_out_zip(members: Sequence[Member], mtime: int) -> PieceList:
    return lay_out_zip(members, mtime, _content_crc32)


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


BENTOMODEL = Format(
    "bentomodel", False, lambda members, mtime: xz_length(tar_length(members, mtime)), _lay_out_bentomodel
)
TAR = Format("tar", False, tar_length, lay_out_tar)
TAR_GZ = Format("tar.gz", True, lambda members, mtime: gzip_length(tar_length(members, mtime)), _lay_out_tar_gz)
ZIP = Format("zip", True, zip_length, _lay_out_zip)

FORMATS = {known.name: known for known in (BENTOMODEL, TAR, TAR_GZ, ZIP)}
