"""What the rest of the library asks of a place that holds a store.

Paths are relative to the store's root, separated by `/`, without `.` or `..`; names that are not UTF-8 carry
surrogates (`os.fsdecode`). Everything here may be called from several threads at once.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bentofs.store.errors import StoreError

if TYPE_CHECKING:
    from bentofs.store.storage.entries import Entries


class Kind(enum.Enum):
    """What lies at a path, links not followed."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"
    SPECIAL = "special"


class Identity(NamedTuple):
    """What tells one content of a file from another. Equal identities: equal bytes, as far as the system can tell.

    ctime is part of it because a file deleted and made again with its old mtime can get the same inode.
    """

    device: int
    inode: int
    size: int  # bytes
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, look: os.stat_result) -> Identity:
        """The identity of a file of this machine."""
        return cls(look.st_dev, look.st_ino, look.st_size, look.st_mtime_ns, look.st_ctime_ns)


class Status(NamedTuple):
    """One look at a path."""

    kind: Kind
    executable: bool  # by its owner
    identity: Identity


class Entry(NamedTuple):
    """One file or folder of a model, links already replaced by what they lead to."""

    path: str  # below the model's folder
    is_folder: bool
    executable: bool
    identity: Identity | None  # None for folders
    source: str  # where the bytes are: below the store's root, or absolute for a followed link
    crc32: int | None = None  # of the bytes, where the store itself keeps it

    @property
    def size(self) -> int:
        """Bytes of the file; 0 for a folder."""
        return self.identity.size if self.identity else 0


class Usage(NamedTuple):
    """Room in a place, as statvfs counts it."""

    block_size: int
    fragment_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int
    name_max: int


class OpenFile(Protocol):
    """A file opened at one identity."""

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        """Fill all views, in order, with the bytes from `offset` on.

        Raises:
            SourceChangedError: the file no longer has the identity it was opened at, or ends early.
            StoreUnreadableError: an I/O error.
        """

    def descriptor(self) -> int | None:
        """Return the descriptor of a file of this machine with these bytes, which lives as long as this; None if there
        is none."""


class OpenFolder(Protocol):
    """A folder that was found once, to be looked at several times."""

    @property
    def identity(self) -> Identity:
        """The folder's own."""

    def listing(self) -> list[tuple[str, Kind]]:
        """Names and kinds of what lies in it, in no order."""

    def statuses(self, paths: Sequence[str]) -> Sequence[Status | StoreError]:
        """One look at each of several paths below it; for a path that `Storage.status` would raise on, its error."""


class Storage(Protocol):
    """A place that holds a store."""

    @property
    def location(self) -> str:
        """Where it is, to show to a user."""

    @property
    def commits_by_model_yaml(self) -> bool:
        """Whether whoever writes a model writes its `model.yaml` last, so that a version that has one is complete."""

    def prepare(self, names: Sequence[str]) -> None:
        """Questions about all these names are about to come: where each costs a round trip, look at them together."""

    def prepare_models(self, paths: Sequence[str], file: str) -> None:
        """These folders of models are about to be walked, and in each one this small file is about to be read: where
        that costs round trips, make them at the same time."""

    def list_folder(self, path: str) -> list[tuple[str, Kind]]:
        """Names and kinds of what lies in a folder, in no order.

        Raises:
            NotFoundError: there is no such folder.
            StoreUnreadableError: it may not be read.
        """

    def status(self, path: str) -> Status:
        """One look at a path; the same errors as `list_folder`."""

    def look_into(self, path: str) -> AbstractContextManager[OpenFolder]:
        """A folder below the root, as long as the context lasts; the same errors as `list_folder`, then and within."""

    def read_small(self, path: str, limit: int) -> bytes:
        """The whole of a regular file of at most `limit` bytes.

        Raises:
            BadModelError: it is larger, or no regular file.
            NotFoundError, StoreUnreadableError: as above.
        """

    def walk(self, path: str) -> tuple[Entries, int]:
        """All files and folders below a folder, and the newest ctime seen (ns, the folder's included).

        Raises:
            UnsafeMemberError: a link leads out, dangles or makes a cycle; or there is a device, socket or fifo.
            BadModelError: there is too much in it.
            SourceChangedError: something vanished while looking.
            NotFoundError, StoreUnreadableError: as above.
        """

    def open_file(self, source: str, identity: Identity) -> OpenFile:
        """Open an entry's bytes.

        Raises:
            SourceChangedError: what lies there is not what had this identity.
            StoreUnreadableError: it may not be read.
        """

    def usage(self) -> Usage:
        """The room in this place."""
