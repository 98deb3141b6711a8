"""Session: one process's part of a staging area (`store.staging.area`), until it is closed or the process ends.

Threading: any thread may call anything. A process with a session must not fork and go on in both processes.
"""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from bentofs.store.errors import StagingError, StoreError
from bentofs.store.staging.spool_recovery import remove_empty
from bentofs.store.util.display import printable
from bentofs.store.util.fs import remove_tree, sync_path

if TYPE_CHECKING:
    from bentofs.store.staging.area import StagingArea

log = logging.getLogger(__name__)


class Session:
    """One process's part of a staging area, until it is closed or the process ends.

    `spool`: directory for uploads, kept when the process ends; `ranges`: directory for the written ranges of uploads
    with gaps; `importing`: directory for uploaded directories that are being imported in place, and go back to the
    spool if that is interrupted; `staged`: directory for models being staged; `intents`: directory for the journal of
    publishing; `name`: unique.
    """

    def __init__(self, area: StagingArea, name: str) -> None:
        """Make the session on disk. Only `StagingArea.open_session` calls it."""
        self.area = area
        self.name = name
        self.path = os.path.join(area.path, "sessions", name)
        self.spool = os.path.join(self.path, "spool")
        self.ranges = os.path.join(self.path, "ranges")
        self.importing = os.path.join(self.path, "importing")
        self.staged = os.path.join(self.path, "staged")
        self.intents = os.path.join(self.path, "intents")
        self._folders = (self.spool, self.ranges, self.importing, self.staged, self.intents)
        self._numbers = itertools.count(1)
        os.mkdir(self.path, 0o700)
        self._lock = open_lock(self._lock_path)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder in self._folders:
                os.mkdir(folder, 0o700)
            sync_path(self.path)
            sync_path(os.path.dirname(self.path))
        except BaseException:
            self._lock.close()
            remove_tree(self.path)
            raise

    @property
    def _lock_path(self) -> str:
        return os.path.join(self.path, "lock")

    def is_complete(self) -> bool:
        """Tell whether all directories and the lock of the session are on disk."""
        return all(map(os.path.isdir, self._folders)) and self._has_lock()

    def make_again(self) -> bool:
        """Make missing parts of the session again; False if nothing is missing. Call it under the area's lock.

        Raises:
            StagingError: another process took the session for a dead one.
            OSError
        """
        if self.is_complete():
            return False
        with suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        if not self._has_lock():
            lock = open_lock(self._lock_path)
            if not try_lock(lock):
                lock.close()
                raise StagingError(f"another process cleans up {printable(self.path)}")
            self._lock.close()
            self._lock = lock
        for folder in self._folders:
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        sync_path(self.path)
        sync_path(os.path.dirname(self.path))
        return True

    def _has_lock(self) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.lstat(self._lock_path), os.fstat(self._lock.fileno()))
        return False

    def new_staged_path(self) -> str:
        """Return a new, unused path in `staged`."""
        return os.path.join(self.staged, str(next(self._numbers)))

    def new_importing_folder(self, inode: int) -> str:
        """Make a new directory in `importing`, for the uploaded directory with this inode at its path below the
        spool."""
        path = os.path.join(self.importing, f"{inode}-{next(self._numbers)}")
        os.mkdir(path, 0o700)
        return path

    def put_aside(self, path: str) -> str:
        """Move a file or directory to `staged` before its removal, and return its new path. Then a crash during the
        removal leaves nothing that looks like an upload."""
        aside = self.new_staged_path()
        try:
            os.rename(path, aside)
        except OSError:  # it is gone, or there is no room for one more name
            return path
        return aside

    def close(self) -> None:
        """Remove all but the spooled uploads, which the next session takes over. No work may be running any more."""
        if self._lock.closed:
            return
        with self._lock:
            try:
                remove_tree(self.staged)
                remove_empty(self.spool)
                remove_empty(self.importing)
                with self.area.locked("area"):
                    self._lock.close()  # first: NFS and FUSE keep an open file in its directory
                    if not any(os.listdir(kept) for kept in (self.spool, self.importing, self.intents)):
                        remove_tree(self.path)
            except (OSError, StoreError) as error:
                log.warning("the staging area %s could not be cleaned up: %s", printable(self.path), error)


def open_lock(path: str) -> BinaryIO:
    """Open a lock file; make it if it is missing."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "r+b")


def try_lock(lock: BinaryIO) -> bool:
    """Take a lock; False if another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
