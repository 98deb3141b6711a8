"""tar archives as they arrive, by Python's `tarfile`: each member is told to whoever stages the model.

`tarfile` reads the headers, all its formats (v7, ustar, pax, GNU). What it takes lightly is refused: a header that does
not hold ends the archive for it, as does the end of the file; sizes may be negative; an extended header may be as large
as it says. Sparse files are refused, since their size says nothing about what they cost.

Threading: one thread an archive.
"""

from __future__ import annotations

import re
import tarfile
from typing import IO, cast

from store.archive.decode import PlainStream, Stream
from store.archive.target import Target, Writer
from store.errors import DamagedArchiveError, StoreError, TooBigError, UnsafeMemberError
from store.text import printable

_MAX_HEADERS = 256 << 10  # bytes of extended headers before one member: names, and attributes of the system
_MAX_DIGITS = 300  # in a row: tarfile's patterns take the square of it
_MAX_GLOBALS = 100  # records that pax headers set for all members
_MAX_PADDING = 16 << 20  # bytes of zeros after the end
_COPIED = 1 << 20  # bytes copied at a time
_SHARED = 1 << 20  # bytes from which on content is not read here, but copied from file to file
_LONG_NUMBER = re.compile(rb"\d{%d}" % _MAX_DIGITS)


def untar(stream: Stream, target: Target) -> None:
    """Unpack the tar archive that a stream holds, to its end.

    Raises:
        DamagedArchiveError: it is cut short, or does not hold together.
        UnsafeMemberError: it holds something that is no file, folder or link.
        StoreError: what the stream and the target raise.
    """
    if any(stream.peek(tarfile.BLOCKSIZE)):
        _unpack_all(stream, target)
    else:
        stream.skip(tarfile.BLOCKSIZE)  # an archive of nothing, at which tarfile's releases differ
    _check_end(stream)


def _unpack_all(stream: Stream, target: Target) -> None:
    headers = _Headers(stream)
    archive = _open(headers)
    while (member := _next(archive)) is not None:
        _unpack(member, stream, target)
        archive.members = []  # type: ignore[attr-defined]  # else it keeps them all
        headers.left = _MAX_HEADERS


def _unpack(member: tarfile.TarInfo, stream: Stream, target: Target) -> None:
    if member.issparse():
        raise UnsafeMemberError(
            f"the archive holds {printable(member.name)!r} as a sparse file: make it without --sparse"
        )
    if member.size < 0:
        raise DamagedArchiveError(f"the archive is damaged: the size of {printable(member.name)!r} is negative")
    if member.isreg():
        with target.file(member.name, bool(member.mode & 0o100)) as file:
            copy(stream, member.size, file)
    elif member.isdir():
        target.folder(member.name)
    elif member.issym():
        target.symlink(member.name, member.linkname)
    elif member.islnk():
        target.hard_link(member.name, member.linkname)
    else:
        raise UnsafeMemberError(
            f"the archive holds {printable(member.name)!r}, which is no file, folder or link, but a device or pipe"
        )


def copy(stream: Stream, count: int, file: Writer) -> None:
    """Append the next `count` bytes of a stream to a file.

    Raises:
        DamagedArchiveError: there are less.
    """
    descriptor = None
    if isinstance(stream, PlainStream) and count >= _SHARED:
        descriptor = stream.source.arriving.fileno()
    while count:
        if descriptor is not None:
            copied = min(count, _COPIED)
            source = stream.source
            if not source.arriving.read_into(memoryview(bytearray(1)), stream.position + copied - 1):
                raise _cut_short()
            file.copy_range(descriptor, stream.position, copied)
            stream.skip(copied)
        else:
            view = stream.take(min(count, _COPIED))
            if not view:
                raise _cut_short()
            file.write(view)
            copied = len(view)
        count -= copied


class _Header(tarfile.TarInfo):
    """A header that is refused where `tarfile` would take it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if not buf:
            raise _cut_short()
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise DamagedArchiveError(f"the archive is damaged: tar says '{error}'") from None


class _Headers:
    """A stream as the file that `tarfile` reads headers from: only so much of it, and only forward."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.left = _MAX_HEADERS

    def read(self, count: int) -> bytes:
        if count < 0 or count > self.left:
            raise TooBigError("the archive holds a tar header that is too large")
        self.left -= count
        content = self._stream.exactly(count)
        if count > tarfile.BLOCKSIZE and _LONG_NUMBER.search(content):
            raise TooBigError("the archive holds a tar header with a number that is too long")
        return content

    def tell(self) -> int:
        return self._stream.position

    def seek(self, position: int) -> None:
        if position < self._stream.position:
            raise DamagedArchiveError("the archive is damaged: a tar header leads back")
        self._stream.skip(position - self._stream.position)


def _open(headers: _Headers) -> tarfile.TarFile:
    try:
        return tarfile.TarFile(
            fileobj=cast("IO[bytes]", headers), tarinfo=_Header, encoding="utf-8", errors="surrogateescape"
        )
    except StoreError:
        raise
    except Exception as error:
        raise _damaged(error) from error


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        member = archive.next()
    except StoreError:
        raise
    except Exception as error:  # what int(), decode() and the like raise on malformed fields
        raise _damaged(error) from error
    if len(archive.pax_headers) > _MAX_GLOBALS:
        raise TooBigError("the archive holds too many global headers")
    return member


def _check_end(stream: Stream) -> None:
    """After the first block of zeros must come another, and then nothing but zeros."""
    zeros = 0
    while view := stream.take(_COPIED):
        if bytes(view).strip(b"\0"):
            raise DamagedArchiveError("the archive is damaged: something follows its end")
        zeros += len(view)
        if zeros > _MAX_PADDING:
            raise TooBigError("the archive is followed by too many zeros")
    if zeros < tarfile.BLOCKSIZE:
        raise _cut_short()


def _cut_short() -> DamagedArchiveError:
    return DamagedArchiveError("the archive is cut short: it ends before its end mark")


def _damaged(error: Exception) -> DamagedArchiveError:
    return DamagedArchiveError(f"the archive is damaged: {printable(' '.join(str(error).split()))[:200]}")
