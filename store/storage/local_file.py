"""Open files of a store in a directory of this machine, and the directories that they lie in."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence

from bentofs.store.errors import SourceChangedError, StoreUnreadableError
from bentofs.store.storage.base import Identity

FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class KeptFolder:
    """The directory of the file that was opened last. It stays open as long as a file in it: the next file is often in
    the same directory, and a model may have tens of thousands."""

    __slots__ = ("__weakref__", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class LocalFile:
    """An open file that can be read only while it has its pinned identity. It is closed with its last reference."""

    __slots__ = ("_descriptor", "_folder", "_identity", "_show", "_source")

    def __init__(
        self, descriptor: int, identity: Identity, show: Callable[[str], str], source: str, folder: KeptFolder
    ) -> None:
        self._descriptor = descriptor
        self._identity = identity
        self._show = show
        self._source = source
        self._folder = folder

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        wanted = 0
        for view in views:
            wanted += len(view)
        try:
            got = os.preadv(self._descriptor, views, offset)
            while got != wanted:  # a short read: network file systems may return one, local disks do not
                rest = _after(views, got)
                more = os.preadv(self._descriptor, rest, offset + got)
                if more == 0:
                    raise SourceChangedError(f"{self._name()} became shorter while it was read")
                got += more
        except OSError as error:
            if error.errno == errno.ESTALE:  # NFS: the file was removed on its server
                raise SourceChangedError(f"{self._name()} is gone") from None
            raise StoreUnreadableError(f"{self._name()} cannot be read: {error.strerror}") from error
        # Check after the read, not before: then the bytes read belong to the identity.
        self.check()

    def descriptor(self) -> int:
        return self._descriptor

    def check(self) -> None:
        """Compare the file with its pinned identity. Raises SourceChangedError if they differ."""
        if not is_same(os.fstat(self._descriptor), self._identity):
            raise SourceChangedError(f"{self._name()} was changed or replaced")

    def _name(self) -> str:
        return self._show(self._source)


def is_same(look: os.stat_result, identity: Identity) -> bool:
    """Return True if a stat is of the regular file with this identity."""
    return (
        look.st_ctime_ns == identity[4]
        and look.st_mtime_ns == identity[3]
        and look.st_size == identity[2]
        and look.st_ino == identity[1]
        and look.st_dev == identity[0]
        and stat.S_ISREG(look.st_mode)
    )


def _after(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """Return the rest of the views after their first `count` bytes."""
    rest = []
    for view in views:
        if count < len(view):
            rest.append(view[count:])
        count = max(0, count - len(view))
    return rest
