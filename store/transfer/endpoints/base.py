"""What every endpoint can do, and what goes into it.

Threading: an endpoint is used by one thread at a time; what it starts itself it ends itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

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

CHUNK = 1 << 20  # bytes handed on at a time


class Known(NamedTuple):
    """What is known of an object from its server."""

    size: int | None  # bytes
    stamp: str | None  # changes with the content: an ETag, or a time
    executable: bool = False  # as far as the server knows


class Target(Protocol):
    """What can be written to. Paths are those of `store.location.Location`.

    Every method of targets and sources raises, after the tries that make sense, RemoteNotFoundError,
    RemoteDeniedError, RemoteError, NoSpaceError, on this machine StoreUnwritableError.
    """

    def write(self, path: str, content: Piece, progress: Progress) -> None:
        """Make an object that replaces what stands there. It appears whole or not at all; when this returns, the server
        has told that it has all of it, by a checksum or else by its size."""

    def write_folder(self, path: str, members: Sequence[Member], progress: Progress) -> None:
        """Make a folder of these members, where nothing may be yet. Nothing is left if that fails. Where it cannot
        appear all at once, model.yaml comes last.

        Raises:
            TargetExistsError: there is something.
        """

    def close(self) -> None:
        """End connections."""


class Source(Protocol):
    """What can be read from."""

    @property
    def can_seek(self) -> bool:
        """Whether a range of an object can be read without what comes before it, at a bearable price."""

    def look(self, path: str) -> Known:
        """What is known of an object."""

    def chunks(self, path: str, known: Known) -> Iterator[bytes]:
        """The content of an object, from its start to its end, as it was when it was looked at.

        Raises:
            SourceChangedError: it is another one now.
        """

    def read_at(self, path: str, known: Known, offset: int, size: int) -> bytes:
        """A range of an object, if `can_seek`."""

    def read_small(self, path: str, limit: int) -> bytes | None:
        """All of a small object; None if there is none, or it is larger than `limit` bytes."""

    def find(self, path: str) -> Iterator[tuple[str, Known | None]]:
        """Everything below a folder, by path below it, in any order; None for a folder.

        Raises:
            UnsafeMemberError: there is something that cannot be read as a file or folder.
        """

    def close(self) -> None:
        """End connections."""


class Endpoint(Target, Source, Protocol):
    """A server."""


class Files(Protocol):
    """What `write_files` needs."""

    def write(self, path: str, content: Piece, progress: Progress) -> None: ...
    def make_folder(self, path: str) -> None: ...
    def make_executable(self, path: str) -> None: ...
    def find(self, path: str) -> Iterator[tuple[str, Known | None]]: ...
    def remove(self, path: str) -> None: ...
    def remove_folder(self, path: str) -> None: ...


def write_files(files: Files, location: Location, members: Sequence[Member], progress: Progress) -> None:
    """As `Target.write_folder`, file by file."""
    base = location.path.rstrip("/")
    with suppress(RemoteNotFoundError):
        if next(files.find(base), None) is not None:
            raise TargetExistsError(f"{location.shown} is not empty: name a folder that is not there yet")
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
