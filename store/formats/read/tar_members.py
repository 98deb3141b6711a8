"""Members of a tar archive: each header together with the extended headers before it.

Reads v7, ustar, pax, GNU and Solaris headers like GNU tar and bsdtar do. An archive that those two read differently is
refused: one of them would see another model.

Threading: one thread per archive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bentofs.store.errors import DamagedArchiveError, TooBigError, UnsafeMemberError
from bentofs.store.formats.read.stream import Stream
from bentofs.store.formats.read.tar_header import BLOCK, ZEROS, Header, read_header, text
from bentofs.store.formats.read.tar_pax import (
    MAX_CONTENT,
    MAX_RECORDS,
    Records,
    another_volume,
    check_global,
    read_records,
)
from bentofs.store.formats.read.tar_sparse import SparseMap, damaged, read_map_before_content, read_old_map
from bentofs.store.util.display import printable

_MAX_GLOBALS = 100  # keywords of global headers
_MAX_NAME = 128 << 10  # bytes of a long name and of other extended headers before a member
_LONG_NAME, _LONG_LINK = b"L", b"K"
_PAX, _PAX_SOLARIS, _PAX_GLOBAL = b"x", b"X", b"g"
_LABEL, _ACL = b"V", b"A"  # the label of a GNU tar archive; a Solaris ACL, before its member
_FILES = (b"0", b"\0", b"7")
_HARD_LINK, _SYMLINK, _FOLDER, _DUMPED_FOLDER, _SPARSE = b"1", b"2", b"5", b"D", b"S"
_DEVICES = (b"3", b"4", b"6")
_ANOTHER_VOLUME = b"M"


class TarMember(NamedTuple):
    """A file, directory or link. At most one of `is_folder`, `symlink` and `hard_link` is set; else it is a file."""

    name: str
    size: int  # bytes of content in the archive, from the stream's place on
    is_executable: bool = False
    is_folder: bool = False
    symlink: str | None = None
    hard_link: str | None = None
    sparse: SparseMap | None = None


@dataclass
class _Before:
    """The extended headers before a member's own header."""

    name: bytes | None = None
    link: bytes | None = None
    records: Records | None = None

    def __bool__(self) -> bool:
        return self.name is not None or self.link is not None or self.records is not None


class TarMembers:
    """The members of the archive in a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = _MAX_NAME  # bytes still allowed before the next member's header
        self._globals: set[bytes] = set()
        self.has_end = False  # true once a block of zeros was read

    def next(self) -> TarMember | None:
        """Read up to the next member's content. Return None at the end mark, or if the stream ends without one.

        Raises:
            DamagedArchiveError: a header is invalid, or a part of it is missing.
            UnsafeMemberError: the member is no file, directory or link.
            TooBigError: the headers before the member are too large.
            StoreError: raised by the stream.
        """
        before = _Before()
        self._left = _MAX_NAME
        while True:
            block = self._stream.exactly(BLOCK)
            self.has_end = block == ZEROS
            if self.has_end or not block:
                if before:
                    raise DamagedArchiveError.damaged("it ends between the headers of one member")
                return None
            if len(block) < BLOCK:
                raise cut_short()
            header = read_header(block)
            if not self._goes_before(header, before):
                return self._member(header, before)

    def _goes_before(self, header: Header, before: _Before) -> bool:
        """Read an extended header, which describes the following member or archive. Return False for other headers."""
        if header.type == _LONG_NAME:
            before.name = text(self._content(header))  # of several, GNU tar and bsdtar use the last
        elif header.type == _LONG_LINK:
            before.link = text(self._content(header))
        elif header.type in (_PAX, _PAX_SOLARIS):
            if before.records is not None:  # of several, GNU tar uses the last, bsdtar none
                raise DamagedArchiveError.damaged("two extended headers stand before one member")
            before.records = read_records(self._content(header, MAX_CONTENT))
        elif header.type == _PAX_GLOBAL:
            self._globals |= check_global(self._content(header, MAX_RECORDS))
            if len(self._globals) > _MAX_GLOBALS:
                raise TooBigError("the archive holds too many global headers")
        elif header.type in (_LABEL, _ACL):
            self._content(header)
        else:
            return False
        return True

    def _content(self, header: Header, at_most: int = 0) -> bytes:
        """Read a header's content. All headers before one member share one limit; `at_most` sets a separate limit."""
        self._left -= BLOCK if at_most else BLOCK + header.size
        if self._left < 0 or (at_most and header.size > at_most):
            raise TooBigError("the archive holds a tar header that is too large")
        content = self._stream.exactly(header.size)
        if len(content) < header.size or not skip_padding(self._stream, header.size):
            raise cut_short()
        return content

    def _member(self, header: Header, before: _Before) -> TarMember:
        records = before.records or Records()
        name = _one_of(before.name, records.path, header.name)
        is_folder = header.type in (_FOLDER, _DUMPED_FOLDER) or records.is_folder
        if header.type in _FILES or (header.type == _SPARSE and header.is_gnu):
            is_folder = is_folder or (records.sparse_name or name).endswith(b"/")  # old writers mark a directory so
            if not is_folder:
                return self._file(header, records, name)
            size = header.size if records.is_folder else 0
            if header.type == _SPARSE or records.sparse_version is not None:
                raise damaged()
            # tarfile turns the top directory into "/"
            return TarMember(_decoded(name.rstrip(b"/")), size, is_folder=True)
        if records.sparse_version is not None:
            raise damaged()
        shown = _decoded(name)
        if is_folder:  # a GNU tar dumped directory has content: its listing; others have none, whatever the size
            size = header.size if header.type == _DUMPED_FOLDER else 0
            return TarMember(shown.rstrip("/"), size, is_folder=True)
        target = _decoded(_one_of(before.link, records.link, header.link))
        if header.type == _SYMLINK:
            return TarMember(shown, 0, symlink=target)
        if header.type == _HARD_LINK:
            return TarMember(shown, 0, hard_link=target)
        if header.type == _ANOTHER_VOLUME:
            raise another_volume()
        if header.type == _SPARSE:
            raise UnsafeMemberError(
                f"the archive holds {printable(shown)!r} as a sparse file of a kind that GNU tar and bsdtar do not "
                "write: make it without sparse files"
            )
        kind = (
            "a device or pipe"
            if header.type in _DEVICES
            else f"of the unknown type {printable(_decoded(header.type))!r}"
        )
        raise UnsafeMemberError.in_archive(printable(shown), f"which is {kind}")

    def _file(self, header: Header, records: Records, name: bytes) -> TarMember:
        size = header.size if records.size is None else records.size
        sparse = None
        if header.type == _SPARSE:
            if records.sparse_version is not None:
                raise damaged()
            sparse = read_old_map(header.block, self._stream)
        elif records.sparse_version is not None:
            name = records.sparse_name or name
            if records.sparse_size is None or records.sparse_version not in ((0, 0), (0, 1), (1, 0)):
                raise damaged()
            if records.sparse_version == (1, 0):
                sparse, taken = read_map_before_content(self._stream, records.sparse_size, size)
                size -= taken
            else:
                sparse = SparseMap.of(records.sparse_size, records.sparse_map)
        if sparse is not None and sparse.stored > size:
            raise damaged()
        return TarMember(_decoded(name), size, bool(header.mode & 0o100), sparse=sparse)


def skip_padding(stream: Stream, size: int) -> bool:
    """Skip from the end of `size` bytes of content to the next block. Return False if the stream ends before."""
    padding = -size % BLOCK
    return len(stream.exactly(padding)) == padding


def cut_short() -> DamagedArchiveError:
    """Return the error for an archive that ends too early."""
    return DamagedArchiveError.cut_short("it ends before its end mark")


def _one_of(long: bytes | None, record: bytes | None, own: bytes) -> bytes:
    """Choose between a member's own name, GNU tar's long name and the name in a pax record."""
    if long is not None and record is not None and long != record:
        raise DamagedArchiveError.damaged("two extended headers give one member two names")
    if record is not None:
        return record
    return own if long is None else long


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
