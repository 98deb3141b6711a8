"""Extraction: unpacks every supported archive of a model while it still arrives.

The first bytes decide the kind of archive, never the file's name. Inside xz, gzip, bzip2 and zstd a tar is expected.

Threading: one thread per archive.
"""

from __future__ import annotations

from bentofs.store.errors import NotAModelError, NotAnArchiveError
from bentofs.store.formats.read.cursor import Cursor
from bentofs.store.formats.read.decode import open_stream
from bentofs.store.formats.read.detect import ArchiveKind, kind_of
from bentofs.store.formats.read.foreign import foreign_kind, is_disk_image
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.formats.read.sink import Sink
from bentofs.store.formats.read.stream import Stream
from bentofs.store.formats.read.tar import untar
from bentofs.store.formats.read.tar_header import BLOCK
from bentofs.store.formats.read.zip import unzip


def extract(arriving: ArrivingFile, target: Sink) -> None:
    """Unpack an archive into a staged model. Read and check all of it, to its last byte.

    Raises:
        NotAModelError: it is no known archive, or is encrypted, or is compressed by an unknown method.
        DamagedArchiveError: it is cut short, or does not match its own checksums and structure.
        UnsafeMemberError: it holds a member that no model may hold, or a path that leads outside.
        TooBigError: it holds too much, or takes too much memory.
        CancelledError: it will not arrive.
        StoreError: raised by the target.
    """
    cursor = Cursor(arriving)
    head = cursor.exactly(BLOCK)
    kind = kind_of(head)
    if kind is ArchiveKind.ZIP:
        unzip(arriving, target)
        return
    if kind is ArchiveKind.UNKNOWN:
        raise _not_an_archive(foreign_kind(head)) if head else NotAModelError("the file is empty: copy it again")
    if not any(head) and is_disk_image(cursor):
        raise _not_an_archive("an ISO image")
    stream = open_stream(arriving, kind)
    read = stream.cursor
    target.archive_read = lambda: read.position  # not by the stream: the target would keep its buffers
    if kind is not ArchiveKind.TAR:
        _expect_tar(stream, kind)
    untar(stream, target)
    if not any(head):
        raise NotAModelError(
            "the archive holds no model: it begins with zeros, as an empty tar or a disk's image does; copy it again"
        )


def _not_an_archive(kind: str | None) -> NotAnArchiveError:
    known = f"this is {kind}" if kind is not None else "this is an unknown kind of file"
    joined = "" if kind is not None else "; if it is one part of several, join them first"
    return NotAnArchiveError(
        f"{known}, not an archive of a model: make a .tar, .tar.gz or .zip of the model's directory{joined}"
    )


def _expect_tar(stream: Stream, kind: ArchiveKind) -> None:
    head = stream.peek(BLOCK)
    if kind_of(head) is not ArchiveKind.TAR:
        raise NotAnArchiveError(
            f"the archive holds something compressed with {kind.value}, but no tar archive: make a "
            ".tar.gz of the model's directory"
        )
