"""The staging area: the place for uploads and for models being staged, beside the store and on its file system.

    <area>/                     0700; by default .<store's name>.bentofs beside the store
        receipts.sqlite         the record of imports
        *.lock                  held for moments
        sessions/<unique>/      one for each running process
            lock                locked for as long as the process lives
            spool/              uploads
            ranges/             the written bytes of uploads that have gaps, by inode
            staged/             models being staged, and files about to be removed
            intents/            the journal of changes to the store (store/staging/journal.py)

A session whose lock can be taken is dead. The next session that opens finishes or undoes its intents, takes over its
uploads and removes the rest. A process holds `area.lock` while it looks for dead sessions, or makes or removes a
session's directory.

Threading: any thread may call anything. A process with a session must not fork and go on in both processes.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bentofs.store.errors import NoSpaceError, StagingError, StoreError
from bentofs.store.paths import state_folder
from bentofs.store.staging.journal import left_behind
from bentofs.store.staging.session import Session, open_lock, try_lock
from bentofs.store.staging.spool_recovery import adopt, adopt_ranges, put_back
from bentofs.store.util.display import printable
from bentofs.store.util.fs import nearest_existing, remove_tree, sync_path

log = logging.getLogger(__name__)

_LOCK_SECONDS = 60.0  # for which another process may hold a lock that is meant for moments
_LOCK_POLL_SECONDS = 0.01


class StagingArea:
    """The staging area of one store, shared by all mounts and command lines on it.

    `store`: the store's real path; `path`: the area's directory; `receipts`: the path of the record of imports.
    """

    def __init__(self, store: str, staging: str | None = None) -> None:
        """`staging`: a directory for the area, if it cannot be beside the store. Nothing is made on disk before
        `open_session`."""
        self.store = os.path.realpath(store)
        parent, name = os.path.split(self.store)
        if staging is None:
            self.path = os.path.join(parent, f".{name}.bentofs")
        else:
            digest = hashlib.sha256(os.fsencode(self.store)).hexdigest()[:16]
            self.path = os.path.join(os.path.realpath(staging), f"{name}-{digest}.bentofs")
        self.receipts = Path(self.path, "receipts.sqlite")
        self._sessions = os.path.join(self.path, "sessions")

    def open_session(self) -> Session:
        """Open a session for this process, and clean up dead sessions.

        Raises:
            StagingError: the area cannot be made or written, or a rename from it into the store is impossible.
            NoSpaceError: there is no room for it.
        """
        self._check_place()
        there = nearest_existing(self.path)
        if os.path.isdir(there):
            self._check_renames(there)  # so that nothing is left in a place of no use
        try:
            self._make()
            with self.locked("area"):
                session = Session(self, f"{_this_boot()}-{os.getpid()}-{secrets.token_hex(6)}")
                dead = self._claim_dead()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(
                    f"models cannot be staged in {self._shown}: no space is left there; free some, or "
                    "name another with --staging DIR"
                ) from error
            raise self._unusable(error.errno) from error
        try:
            self._check_renames(session.path)
        except BaseException:
            for _, lock in dead:
                lock.close()
            session.close()
            raise
        for name, lock in dead:
            self._clean(session, name, lock)
        return session

    def check(self) -> None:
        """Check that a session can be opened, without making anything. `open_session` finds the rest.

        Raises:
            StagingError: it cannot.
        """
        self._check_place()
        there = nearest_existing(self.path)
        if not os.path.isdir(there):
            raise self._unusable(errno.ENOTDIR)
        if there == self.path:
            self._check_owner(there, os.lstat(there).st_uid)
        if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
            raise self._unusable(errno.EACCES)
        self._check_renames(there)

    def is_alive(self, session: str) -> bool:
        """Tell whether the process that opened this session still has it open."""
        with self.locked("area"):
            lock = self._claim(session)
            if lock is not None:
                lock.close()
            return lock is None and os.path.lexists(os.path.join(self._sessions, session))

    def is_of_this_boot(self, session: str) -> bool:
        """Tell whether this session was opened since this machine started. Then all its data is still there, synced or
        not."""
        return session.startswith(f"{_this_boot()}-")

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Lock `what` in this area, within the context, against all other threads and processes.

        Raises:
            OSError, StagingError
        """
        path = os.path.join(self.path, f"{what}.lock")
        with open_lock(path) as lock:
            deadline = time.monotonic() + _LOCK_SECONDS
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    raise StagingError(
                        f"another process has held {printable(path)} for {_LOCK_SECONDS:g} s: wait for it, or end it"
                    )
                time.sleep(_LOCK_POLL_SECONDS)
            yield

    def make_again(self, session: Session) -> bool:
        """Make missing directories of the area and of a session in use again, at the same place, with the same owner
        and permissions. False if nothing is missing.

        Raises:
            StagingError: the area has no place any more, or a rename from it into the store is impossible.
            OSError
        """
        if session.is_complete():
            return False
        self._check_place()
        self._make()
        with self.locked("area"):
            made = session.make_again()
        self._check_renames(session.path)
        return made

    @property
    def _shown(self) -> str:
        return printable(self.path)

    def _check_place(self) -> None:
        store = printable(self.store)
        if not os.path.isdir(self.store):
            raise StagingError(f"there is no model store at {store}: save a model with BentoML first")
        if not os.access(self.store, os.W_OK | os.X_OK, effective_ids=True):
            raise StagingError(f"the model store {store} may not be written by you")
        if os.path.commonpath([self.store, self.path]) == self.store:
            raise StagingError(
                f"{self._shown} lies inside the store, where BentoML would take it for a model: name a directory "
                "outside of it with --staging DIR"
            )

    def _make(self) -> None:
        parent = os.path.dirname(self.path)
        try:
            os.makedirs(parent, mode=0o700, exist_ok=True)  # it may be the user's state directory
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), parent) from None
        made = False
        for folder in (self.path, self._sessions):
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
                made = True
            look = os.lstat(folder)
            if not stat.S_ISDIR(look.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
            self._check_owner(folder, look.st_uid)
            if stat.S_IMODE(look.st_mode) != 0o700:
                os.chmod(folder, 0o700)
        if made:
            sync_path(self.path)
            sync_path(parent)

    def _check_owner(self, folder: str, owner: int) -> None:
        if owner != os.geteuid():
            raise StagingError(
                f"{printable(folder)} belongs to user {owner}, not to you: name another directory on the store's file "
                "system with --staging DIR"
            )

    def _unusable(self, number: int | None) -> StagingError:
        return StagingError(
            f"models cannot be staged in {self._shown}: {os.strerror(number or errno.EIO)}; name another directory on "
            "the store's file system with --staging DIR"
        )

    def _check_renames(self, folder: str) -> None:
        """Make sure that a rename from a directory of the area into the store is possible. It is impossible from
        another file system, or through another mount of the same one."""
        leads = os.lstat(folder).st_dev == os.lstat(self.store).st_dev  # subvolumes of btrfs differ in this
        nothing = f".bentofs-{secrets.token_hex(8)}"
        try:
            os.rename(os.path.join(folder, nothing), os.path.join(self.store, nothing))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise StagingError(
                    f"models cannot be moved from {self._shown} into the store: {os.strerror(error.errno or errno.EIO)}"
                ) from error
            leads = False
        if leads:
            return
        if os.path.ismount(self.store):
            raise StagingError(
                f"the store {printable(self.store)} is a mount of its own, so that no directory outside of it is on "
                "the same file system: use a directory in that mount as the store (BENTOML_HOME one level up), or do "
                "without imports, as `bentofs mount --read-only` does"
            )
        raise StagingError(
            f"{self._shown} is not on the file system of the store {printable(self.store)}: name a directory that is, "
            "outside of the store, with --staging DIR"
        )

    def _claim_dead(self) -> list[tuple[str, BinaryIO]]:
        """Return the sessions whose process has ended, and their locks, which are ours now. Call it under the area's
        lock."""
        found = []
        for name in os.listdir(self._sessions):
            lock = self._claim(name)
            if lock is not None:
                found.append((name, lock))
        return found

    def _claim(self, session: str) -> BinaryIO | None:
        """Take a session's lock if its process has ended; else return None. Call it under the area's lock."""
        try:
            lock = open_lock(os.path.join(self._sessions, session, "lock"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if try_lock(lock):
            return lock
        lock.close()
        return None

    def _clean(self, session: Session, name: str, lock: BinaryIO) -> None:
        """Clean up a dead session: settle its intents, take over its uploads, remove the rest. After a failure, the
        next session tries again."""
        path = os.path.join(self._sessions, name)
        with lock:
            try:
                importing = Path(path, "importing")
                for intent in left_behind(self.store, os.path.join(path, "intents")):
                    if intent.is_published():  # the upload's directory holds the replaced model now
                        for taken in importing.glob(f"{intent.inode}-*"):
                            remove_tree(str(taken))
                    intent.settle(lambda: self.locked("latest"), session.new_staged_path())
                with suppress(FileNotFoundError):
                    adopt(os.path.join(path, "spool"), session.spool)
                with suppress(FileNotFoundError):
                    for taken in importing.iterdir():
                        put_back(str(taken), session.spool)
                # Ranges from before a reboot may state more bytes than are on the disk.
                adopt_ranges(
                    os.path.join(path, "ranges"), session.ranges, session.spool, hold=self.is_of_this_boot(name)
                )
                remove_tree(os.path.join(path, "staged"))
                with self.locked("area"):
                    lock.close()  # first: NFS and FUSE keep an open file in its directory
                    remove_tree(path)
            except (OSError, StoreError) as error:
                log.warning("the remains of a dead process in %s could not be removed: %s", printable(path), error)


class RemoteStagingArea(StagingArea):
    """The local staging area of a remote store: staged models are uploaded, not renamed."""

    def __init__(self, location: str, staging: str | None = None) -> None:
        """`location`: the store's URL; `staging`: a directory for the area, else the user's own state directory."""
        self.store = location
        folder = os.path.realpath(staging) if staging is not None else state_folder()
        digest = hashlib.sha256(location.encode(errors="surrogateescape")).hexdigest()[:16]
        self.path = os.path.join(folder, f"remote-{digest}.bentofs")
        self.receipts = Path(self.path, "receipts.sqlite")
        self._sessions = os.path.join(self.path, "sessions")

    def _check_place(self) -> None:
        """Do nothing: any place is suitable."""

    def _check_renames(self, folder: str) -> None:
        """Do nothing: nothing is renamed into the store."""


def staging_area(location: str, folder: str | None, staging: str | None) -> StagingArea:
    """Return the staging area of a store; `location`: the store's path or URL; `folder`: its directory on this machine,
    None for a URL; `staging`: the directory that a user named for the area."""
    return RemoteStagingArea(location, staging) if folder is None else StagingArea(os.path.realpath(folder), staging)


def _this_boot() -> str:
    """Return a name that is unique to this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").partition("-")[0]
