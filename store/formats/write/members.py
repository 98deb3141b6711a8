"""Members: the entries of an archive, whatever its format."""

from __future__ import annotations

import enum
import os
import stat
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from bentofs.store.formats.pieces import Piece


class Packing(enum.Enum):
    """The way a member's content goes into a compressed archive."""

    STORED = "stored"
    SMALL = "small"  # compressed without a sample, together with its neighbours if the format can do that
    TINY = "tiny"  # the same in a tar; stored in a zip, which needs no look at the file then
    LARGE = "large"  # compressed in chunks of its own, if its sample shows that it is worth it


class Member(NamedTuple):
    """One file or directory of an archive."""

    path: str  # as on this machine (`store.util.names`), without leading `./` and trailing `/`
    is_folder: bool
    executable: bool
    content: Piece | None  # None for an empty file and a directory

    @property
    def size(self) -> int:
        """Return the bytes of content."""
        return self.content.length if self.content else 0

    @property
    def permissions(self) -> int:
        """Return 0755 for directories and files that the owner may execute, else 0644: the same on every machine."""
        return 0o755 if self.is_folder or self.executable else 0o644

    @property
    def mode(self) -> int:
        """Return the mode as in `st_mode`."""
        return self.permissions | (stat.S_IFDIR if self.is_folder else stat.S_IFREG)

    @property
    def name(self) -> str:
        """Return the path as archives write it.

        A path that begins like a Windows drive, such as `c:x`, gets `./` in front. Else BentoML 1.4.40 refuses the
        archive.
        """
        path = self.path
        return f"./{path}" if path[1:2] == ":" and path[0].isascii() and path[0].isalpha() else path

    @property
    def archive_path(self) -> bytes:
        """Return the name's bytes. Directories end in `/`."""
        return os.fsencode(self.name) + (b"/" if self.is_folder else b"")


# Of a member: its path as on this machine, true for a directory, true if its owner may execute it, bytes of content
Shape = tuple[bytes, bool, bool, int]


class Shaped:
    """Members whose shapes are known without making each member."""

    @abstractmethod
    def shapes(self) -> Iterator[Shape]:
        """Yield the shape of each member, in order."""


def name_length(path: bytes, is_folder: bool) -> int:
    """Return the length of the archive path of a member with this shape (`Member.archive_path`)."""
    return len(path) + is_folder + (2 if path[1:2] == b":" and path[:1].isalpha() else 0)


def shapes_of(members: Sequence[Member]) -> Iterator[Shape]:
    """Yield the shape of each member, in order."""
    if isinstance(members, Shaped):
        return members.shapes()
    return ((os.fsencode(member.path), member.is_folder, member.executable, member.size) for member in members)


@runtime_checkable
class ReadTogether(Protocol):
    """Members whose contents are read faster together than one by one."""

    def read_contents(self, wanted: Sequence[tuple[int, memoryview]]) -> None:
        """Read whole contents. `wanted`: numbers of members, and views as long as their contents. It raises the same
        errors as `Piece.read_into`."""


@runtime_checkable
class Summed(Protocol):
    """Members of which many CRC-32s are known without making each member."""

    def known_crc32(self, number: int) -> int | None:
        """Return the CRC-32 of a member's content; None if it is unknown."""


def read_contents(members: Sequence[Member], wanted: Sequence[tuple[int, memoryview]]) -> None:
    """Do what `ReadTogether.read_contents` does, for any members."""
    if isinstance(members, ReadTogether):
        members.read_contents(wanted)
        return
    for number, view in wanted:
        content = members[number].content
        if content is not None:
            content.read_into([view], 0)
