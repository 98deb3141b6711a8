"""Unpacking of tar archives while they arrive. Each member is passed to the target.

Members are read like GNU tar and bsdtar read them (see `tar_members`). A compressed stream is read to its last byte:
its own checks tell whether it is complete. The end mark is a block of zeros. Everything after it is ignored, since
POSIX leaves it undefined. A plain tar has no checks of its own. So it must have that mark, and the bytes after it must
look like the rest of a record.

Threading: one thread per archive.
"""

from __future__ import annotations

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.formats.read.sink import Sink, Writer
from bentofs.store.formats.read.stream import PlainStream, Stream
from bentofs.store.formats.read.tar_members import TarMember, TarMembers, cut_short, skip_padding

_COPIED = 1 << 20  # bytes copied at a time
# Bytes after the end mark of a plain tar that may be anything: the rest of a record, where some writers leave old
# content. Bytes after that belong to a file that has lost a part in between.
_LAST_RECORD = 1 << 20


def untar(stream: Stream, target: Sink) -> None:
    """Unpack the tar archive in a stream, to its end.

    Raises:
        DamagedArchiveError: it is cut short or inconsistent.
        UnsafeMemberError: it holds a member that is no file, directory or link.
        StoreError: raised by the stream or the target.
    """
    members = TarMembers(stream)
    while (member := members.next()) is not None:
        _unpack(member, stream, target)
    if not members.has_end and isinstance(stream, PlainStream):
        raise cut_short()
    _ignore_rest(stream, target)


def _unpack(member: TarMember, stream: Stream, target: Sink) -> None:
    if member.symlink is not None:
        target.symlink(member.name, member.symlink)
    elif member.hard_link is not None:
        target.hard_link(member.name, member.hard_link)
    elif member.is_folder:
        target.folder(member.name)
        _ignore(stream, member.size, target)
    else:
        with target.file(member.name, member.is_executable, replaces=True) as file:
            _copy_content(stream, member, file)
        if member.sparse is not None:
            _ignore(stream, member.size - member.sparse.stored, target)
    if not skip_padding(stream, member.size):
        raise cut_short()


def _copy_content(stream: Stream, member: TarMember, file: Writer) -> None:
    if member.sparse is None:
        copy(stream, member.size, file)
        return
    cursor, byte = stream.cursor, memoryview(bytearray(1))

    def still_comes() -> None:
        cursor.arriving.read_into(byte, cursor.position)  # raises if the archive is no longer wanted

    end = 0
    for offset, length in member.sparse.regions():
        file.write_zeros(offset - end, still_comes)
        copy(stream, length, file)
        end = offset + length
    file.write_zeros(member.sparse.size - end, still_comes)


def copy(stream: Stream, count: int, file: Writer) -> None:
    """Append the next `count` bytes of a stream to a file.

    Raises:
        DamagedArchiveError: there are fewer.
    """
    while count:
        view = stream.take(min(count, _COPIED))
        if not view:
            raise cut_short()
        file.write(view)
        count -= len(view)


def _ignore(stream: Stream, count: int, target: Sink) -> None:
    """Skip bytes that are no part of the model."""
    while count:
        view = stream.take(min(count, _COPIED))
        if not view:
            raise cut_short()
        target.pass_over(len(view))
        count -= len(view)


def _ignore_rest(stream: Stream, target: Sink) -> None:
    """Read to the end of the stream, where it is checked."""
    passed = 0
    while view := stream.take(_COPIED):
        if isinstance(stream, PlainStream) and passed >= _LAST_RECORD and bytes(view).strip(b"\0"):
            raise DamagedArchiveError.damaged("something follows its end")
        target.pass_over(len(view))
        passed += len(view)
