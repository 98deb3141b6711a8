"""A SQLite file that may be lost, but whose failures never stop the caller. If it is damaged, unwritable or owned by
another user, work continues with an empty file or in memory. On a full disk, work continues without the new rows. The
log reports it. Several processes may use one file at once.

Threading: the owner of a `Database` holds its own lock around every call.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import quote

from bentofs.store.util.sqlite_causes import Cause, UnusableFileError, cause_of

log = logging.getLogger(__name__)

_CACHE_KIB = 512  # page cache; SQLite's default is 2,000, and a mount has several databases
_STATEMENTS = 16  # compiled statements kept; Python's default is 128, and a query for 500 files takes 50 kB
_INCREMENTAL = 2  # the value of PRAGMA auto_vacuum
_VACUUMED = 256  # pages given back in one step, in which no other process can write
_OPEN_SECONDS = 10.0  # how long opening waits while another process writes

_T = TypeVar("_T")


class Database:
    """One connection to one file."""

    def __init__(
        self,
        path: Path | Callable[[], Path],
        schema: str,
        version: int,
        *,
        what: str,
        loss: str,
        busy_seconds: float,
        busy_level: int = logging.INFO,
        upgrades: Mapping[int, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """`path`: of the file, or a function that returns it; `what`: a name for the log; `loss`: the consequence of a
        loss, for the log; `busy_seconds`: how long a call waits while another process writes; `busy_level`: the log
        level if that was not enough; `upgrades`: the statements that make each older version the next one."""
        self._path = path if isinstance(path, Path) else Path()  # until _find is called
        self._find = path if callable(path) else lambda: self._path
        self._schema = schema
        self._version = version
        self._upgrades = upgrades
        self._what = what
        self._loss = loss
        self._busy_seconds = busy_seconds
        self._busy_level = busy_level
        self._closed = False
        self._is_full = False
        self._on_disk = True
        self._inode = 0
        self._connection = self._open()

    def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Call `work` with the connection and return its result; None if it failed. Replace a broken file by an empty
        one."""
        if self._closed:
            return None
        try:
            done = work(self._connection)
            self._is_full = False
            return done
        except sqlite3.Error as error:
            cause = cause_of(error)
            if cause is Cause.BUSY:
                log.log(self._busy_level, "the %s %s is in use (%s)", self._what, self._path, error)
                return None
            if cause is Cause.FULL:  # logged once, until there is space again
                if not self._is_full:
                    log.warning("the %s %s cannot be written: %s", self._what, self._path, error)
                self._is_full = True
                return None
            if isinstance(error, sqlite3.IntegrityError):  # the statement is wrong, not the file
                log.exception("the %s %s refuses a change", self._what, self._path)
                return None
            with suppress(sqlite3.Error):
                self._connection.close()
            if cause is Cause.DAMAGED:
                log.warning("the %s %s failed (%s); %s", self._what, self._path, error, self._loss)
                self._set_aside()
                self._connection = self._open()
            else:  # the disk fails: the file may be intact
                log.warning("no %s is kept from now on: %s: %s", self._what, self._path, error)
                self._connection = self._in_memory()
            with suppress(sqlite3.Error):
                return work(self._connection)
            return None

    def return_to_disk(self) -> None:
        """Write the file again from the open connection if it was removed. If another process has recreated it, use
        that file."""
        if self._closed or not self._on_disk or self._stands():
            return
        was_removed, old = not self._path.exists(), self._connection
        self._connection = self._open()
        try:
            if was_removed:
                old.backup(self._connection)
        except sqlite3.Error as error:
            log.warning("the %s %s was removed (%s); %s", self._what, self._path, error, self._loss)
        finally:
            with suppress(sqlite3.Error):
                old.close()

    def shrink(self) -> None:
        """Give the room of removed rows back to the file system, in short steps. While another process reads, the file
        keeps its size."""
        if self._on_disk:
            self.run(_shrink)

    @property
    def is_on_disk(self) -> bool:
        """True if writes are kept on disk; false while the database is in memory."""
        return self._on_disk

    def close(self) -> None:
        """Close the connection. From now on `run` returns None."""
        self._closed = True
        self._connection.close()

    def _stands(self) -> bool:
        """True if the open file is still at its path."""
        try:
            return self._path.stat().st_ino == self._inode
        except OSError:
            return False

    def _open(self) -> sqlite3.Connection:
        try:
            return self._open_file()
        except sqlite3.DatabaseError as error:
            if cause_of(error) in (Cause.BUSY, Cause.FULL, Cause.DISK):
                log.warning("no %s is kept: %s: %s", self._what, self._path, error)
                return self._in_memory()
            log.warning("the %s %s is damaged (%s); %s", self._what, self._path, error, self._loss)
            self._set_aside()
        except OSError as error:
            if error.errno == errno.EROFS and self._path.is_file():
                return self._open_read_only(error)
            log.warning("no %s is kept: %s", self._what, error)
            return self._in_memory()
        try:
            return self._open_file()
        except (sqlite3.Error, OSError) as error:
            log.warning("no %s is kept: %s: %s", self._what, self._path, error)
            return self._in_memory()

    def _open_file(self) -> sqlite3.Connection:
        """Connect, with retries while other processes create the file. Raises sqlite3.Error, OSError."""
        deadline = time.monotonic() + _OPEN_SECONDS
        while True:
            try:
                return self._connect()
            except sqlite3.OperationalError as error:
                # SQLite does not wait when several processes create the file at once.
                if cause_of(error) is not Cause.BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _connect(self) -> sqlite3.Connection:
        self._path = self._find()
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
        if owner != os.geteuid():
            raise PermissionError(f"{folder} belongs to user {owner}, not to you")
        if self._path.exists() and not self._path.is_file():
            raise UnusableFileError("it is not a file")
        connection = sqlite3.connect(
            self._path,
            timeout=self._busy_seconds,
            check_same_thread=False,
            isolation_level="IMMEDIATE",
            cached_statements=_STATEMENTS,
        )
        try:
            self._path.chmod(0o600)
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # works on an empty file only; for `shrink`
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            self._upgrade(connection)
            connection.executescript(self._schema)
            connection.execute(f"PRAGMA user_version={self._version}")
            self._inode = self._path.stat().st_ino
        except BaseException:
            connection.close()
            raise
        return connection

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        """Bring a file of an older version to this one, unless another process does so meanwhile."""
        if _version_of(connection) in (0, self._version):
            return
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            version = _version_of(connection)
            while version != self._version:
                if version not in self._upgrades:
                    raise UnusableFileError("it was written by another version of bentofs")
                for statement in self._upgrades[version]:
                    connection.execute(statement)
                version += 1
            connection.execute(f"PRAGMA user_version={self._version}")

    def _open_read_only(self, reason: OSError) -> sqlite3.Connection:
        """Open a file on a read-only file system. It is read in the state in which its last writer left it."""
        try:
            connection = sqlite3.connect(
                f"file:{quote(os.fsencode(self._path))}?immutable=1",
                uri=True,
                check_same_thread=False,
                isolation_level="IMMEDIATE",
            )
            if connection.execute("PRAGMA user_version").fetchone()[0] != self._version:
                raise UnusableFileError("it was written by another version of bentofs")
        except sqlite3.Error as error:
            log.warning("no %s is kept: %s: %s", self._what, reason, error)
            return self._in_memory()
        log.info("the %s %s is only read: %s", self._what, self._path, reason)
        return connection

    def _in_memory(self) -> sqlite3.Connection:
        self._on_disk = False
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.executescript(self._schema)
        return connection

    def _set_aside(self) -> None:
        """Rename the damaged file, so that a new one can be created."""
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self._path}{suffix}").replace(f"{self._path}.damaged{suffix}")


def _version_of(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _shrink(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:  # a file of an older release
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("VACUUM")
    free, before = _free_pages(connection), -1
    while free and free != before:
        connection.execute(f"PRAGMA incremental_vacuum({_VACUUMED})").fetchall()
        free, before = _free_pages(connection), free
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
