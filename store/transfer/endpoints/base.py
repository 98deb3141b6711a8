"""The interface of every endpoint, and the types that it uses.

Threading: an endpoint is used by one thread at a time. It ends the threads that it starts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol, runtime_checkable

from bentofs.store.archives.growing import Growing
from bentofs.store.errors import RemoteNotFoundError, StoreError, TargetExistsError
from bentofs.store.formats.pieces import Literal, Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.location import Location
from bentofs.store.util.display import printable
from bentofs.store.util.names import portable_name

log = logging.getLogger(__name__)

Progress = Callable[
    [int], None
]  # told of bytes that were transferred since the last call; may be negative after a retry


def no_progress(_count: int) -> None:
    """Ignore the count."""


CHUNK = 1 << 20  # bytes handed on at a time


class Known(NamedTuple):
    """Data that a server gives of an object."""

    size: int | None  # bytes
    stamp: str | None  # changes with the content: an ETag, or a time
    executable: bool = False  # false if the server does not tell
    mtime_ns: int = 0  # compared if there is no stamp; 0 if the server does not tell


class Target(Protocol):
    """An endpoint that can be written to. Paths have the form of `store.location.Location`.

    All methods of targets and sources raise RemoteNotFoundError, RemoteDeniedError, RemoteError and NoSpaceError, after
    the retries that make sense. On this machine they also raise StoreUnwritableError.
    """

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """Make an object that replaces the one at `path`. It appears whole or not at all. When this returns, the server
        has confirmed all of it, by a checksum or else by its size."""

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """Make a directory of these members at an unused path. If that fails, nothing is left. If the directory cannot
        appear all at once, model.yaml comes last.

        Raises:
            TargetExistsError: something is there.
        """

    def close(self) -> None:
        """Close the connections."""


@runtime_checkable
class GrowingTarget(Protocol):
    """A target that needs no length in advance."""

    def write_growing(self, path: str, growing: Growing, progress: Progress) -> None:
        """Do what `Target.write` does, while the archive is measured.

        Raises:
            CannotGrowError: only `write` can do it. Nothing was written.
        """


class Source(Protocol):
    """An endpoint that can be read from."""

    @property
    def can_seek(self) -> bool:
        """True if a range of an object can be read, at a bearable price, without the bytes before it."""

    def look(self, path: str) -> Known:
        """Return the data that the server gives of an object."""

    def chunks(self, path: str, known: Known) -> Iterator[bytes]:
        """Yield the content of an object from start to end, unchanged since `look`.

        Raises:
            SourceChangedError: the object has changed.
        """

    def read_at(self, path: str, known: Known, offset: int, size: int) -> bytes:
        """Return a range of an object. Only if `can_seek`."""

    def read_small(self, path: str, limit: int) -> bytes | None:
        """Return all of a small object. None if there is none, or if it is larger than `limit` bytes."""

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """Yield everything below a directory, by its path below it, in any order. A directory comes with None.

        Raises:
            UnsafeMemberError: something there cannot be read as a file or directory.
        """

    def close(self) -> None:
        """Close the connections."""


class Endpoint(Target, Source, Protocol):
    """A server."""


class Files(Protocol):
    """The methods that `write_files` needs."""

    def write(self, path: str, content: Piece, progress: Progress) -> None: ...
    def make_folder(self, path: str) -> None: ...
    def make_executable(self, path: str) -> None: ...
    def find(self, path: str) -> Iterator[tuple[str, Known | None]]: ...
    def remove(self, path: str) -> None: ...
    def remove_folder(self, path: str) -> None: ...


def write_files(files: Files, location: Location, members: Sequence[Member], progress: Progress) -> None:
    """Do what `Target.write_folder` does, file by file."""
    base = location.path.rstrip("/")
    with suppress(RemoteNotFoundError):
        if next(files.find(base), None) is not None:
            raise TargetExistsError(f"{location.shown} is not empty: name a directory that is not there yet")
    undo: list[tuple[Callable[[str], None], str]] = []
    try:
        for member in [*members[1:], members[0]]:  # model.yaml is the first of an archive's members
            name = portable_name(member.path)
            path = f"{base}/{name}" if base else name
            if member.is_folder:
                undo.append((files.remove_folder, path))
                files.make_folder(path)
            else:
                undo.append((files.remove, path))
                files.write(path, member.content or Literal(b""), progress)
                if member.executable:
                    files.make_executable(path)
    except BaseException:
        for remove, path in reversed(undo):
            try:
                remove(path)
            except StoreError as error:
                log.warning("%s of an export that failed could not be removed: %s", printable(path), error)
        raise
