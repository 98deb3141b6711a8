"""Storage: the interface to a place that holds a store.

Paths are relative to the store's root, separated by `/`, without `.` or `..`; names that are not UTF-8 carry
surrogates (`os.fsdecode`). Everything here may be called from several threads at once.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bentofs.store.errors import StoreError

if TYPE_CHECKING:
    from bentofs.store.storage.entries import Entries


class Kind(enum.Enum):
    """The kind of a directory entry, links not followed."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPECIAL = "special"


class Identity(NamedTuple):
    """The identity of a file's content. Equal identities mean equal bytes, as far as the system can tell.

    ctime is part of it because a file that was deleted and recreated with its old mtime can get the same inode.
    """

    device: int
    inode: int
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, look: os.stat_result) -> Identity:
        """Return the identity of a file of this machine."""
        # Made without the call of a Python function: looking at 10,000 names makes 40,000 of them.
        return tuple.__new__(cls, (look.st_dev, look.st_ino, look.st_size, look.st_mtime_ns, look.st_ctime_ns))


class Status(NamedTuple):
    """The stat of one path."""

    kind: Kind
    executable: bool  # by its owner
    identity: Identity


class Entry(NamedTuple):
    """One file or directory of a model, with links already replaced by their targets."""

    path: str  # relative to the model's directory
    is_folder: bool
    executable: bool
    identity: Identity | None  # None for directories
    source: str  # path of the bytes: relative to the store's root, or absolute for a followed link
    crc32: int | None = None  # of the bytes, if the store itself records it

    @property
    def size(self) -> int:
        """Return the file's size in bytes; 0 for a directory."""
        return self.identity.size if self.identity else 0


class Totals(NamedTuple):
    """The totals of the files of a model."""

    size: int  # bytes
    file_count: int
    manifest: Identity | None  # of the model's manifest, which was not read; None if it has none


class Usage(NamedTuple):
    """Free and used space of a file system, in the units of statvfs."""

    block_size: int
    fragment_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    name_max: int


class OpenFile(Protocol):
    """A file that was opened at one identity."""

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """Fill all views, in order, with the bytes from `offset` on.

        Raises:
            SourceChangedError: the file no longer has the identity it was opened at, or ends early.
            StoreUnreadableError: an I/O error.
        """

    def descriptor(self) -> int | None:
        """Return the descriptor of a local file with these bytes, or None. It is open as long as this object exists."""


class OpenFolder(Protocol):
    """A directory that is looked up once and read several times."""

    @property
    def identity(self) -> Identity:
        """Return the identity of the directory itself."""

    def listing(self) -> list[tuple[str, Kind]]:
        """Return the names and kinds of its entries, in no order."""

    def statuses(self, paths: Sequence[str]) -> Sequence[Status | StoreError]:
        """Stat several paths below it. Where `Storage.status` would raise, return the error in place of the status."""


class Storage(Protocol):
    """A place that holds a store."""

    @property
    def location(self) -> str:
        """Return the location, to show to a user."""

    @property
    def folder(self) -> str | None:
        """Return the directory of this machine that holds the files; None if there is none."""

    @property
    def has_page_cache(self) -> bool:
        """True if the kernel keeps the bytes that were read, so that reading a model again transfers nothing."""

    @property
    def reads_ahead(self) -> bool:
        """True if it reads ahead itself, so that the kernel need not."""

    @property
    def lists_without_requests(self) -> bool:
        """True if listing the models takes no request to a server."""

    @property
    def has_deep_identities(self) -> bool:
        """True if the identity of a name's directory changes with anything below it, so that an equal identity makes
        other looks needless."""

    @property
    def commits_by_model_yaml(self) -> bool:
        """True if writers write `model.yaml` last, so that a version that has one is complete."""

    def prepare(self, names: Sequence[str]) -> None:
        """Prefetch these names: calls about all of them follow. Look at them together if each costs a round trip."""

    def prepare_models(self, paths: Sequence[str], files: Sequence[str]) -> None:
        """Prefetch these models: each directory is walked next, and each of these small files is read. Make the round
        trips in parallel if there are any."""

    def pins_content(self, path: str, identity: Identity, read_ns: int) -> bool:
        """Return True if the identity of a file proves its content: no later content will have the same one.
        `identity`: of the file before and after it was read; `read_ns`: when reading began (wall clock)."""

    def list_folder(self, path: str) -> list[tuple[str, Kind]]:
        """Return the names and kinds of a directory's entries, in no order.

        Raises:
            NotFoundError: there is no such directory.
            StoreUnreadableError: it may not be read.
        """

    def status(self, path: str) -> Status:
        """Stat a path. Raises the same errors as `list_folder`."""

    def look_into(self, path: str) -> AbstractContextManager[OpenFolder]:
        """Open a directory below the root for the time of the context. Entering it, and code within it, raise the same
        errors as `list_folder`."""

    def read_small(self, path: str, limit: int) -> bytes:
        """Read the whole of a regular file of at most `limit` bytes.

        Raises:
            BadModelError: it is larger, or not a regular file.
            NotFoundError, StoreUnreadableError: as above.
        """

    def walk(self, path: str) -> tuple[Entries, int]:
        """Return all files and directories below a directory, and the newest ctime (ns; the directory's included).

        Raises:
            UnsafeMemberError: a link leads out, dangles or makes a cycle; or there is a device, socket or fifo.
            BadModelError: it holds too many entries.
            SourceChangedError: an entry vanished during the walk.
            NotFoundError, StoreUnreadableError: as above.
        """

    def totals(self, path: str) -> Totals:
        """Return the totals of a model's directory. In a store in a bucket, its listing tells them, without a request
        for the manifest. Raises the same errors as `walk`."""

    def is_unchanged(self, path: str, entries: Entries) -> bool:
        """Tell whether `walk` would find these entries, which it found before; False if only a walk can tell. This is
        faster than a walk."""

    def open_file(self, source: str, identity: Identity) -> OpenFile:
        """Open an entry's bytes.

        Raises:
            SourceChangedError: the file there has another identity.
            StoreUnreadableError: it may not be read.
        """

    def read_whole(self, files: Iterable[tuple[str, Identity, memoryview]]) -> None:
        """Read small files, each of them whole. This is faster than opening them one by one. `files`: the source and
        the identity of each, and a view as long as the file. It raises the same errors as `open_file` and
        `OpenFile.read_into`."""

    def check_writable(self) -> None:
        """Check, as far as that takes more than permissions, that models can be imported.

        Raises:
            StoreUnwritableError, RemoteDeniedError, RemoteError: the reason why they cannot.
        """

    def usage(self) -> Usage:
        """Return the free and used space."""
