"""The index: what was learnt from files' bytes, kept on disk in SQLite under the user's cache directory.

Losing or corrupting it costs only the time to learn it again: whatever goes wrong here is logged, and the index goes
on in memory. Several processes may use one index at once.

Threading: all methods may be called from any thread; one lock around one connection.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import platformdirs

from store.storage.base import Identity

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checksums (
    file TEXT PRIMARY KEY,
    crc32 INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archive_digests (
    archive TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS file_digests (
    store TEXT, tag TEXT, created TEXT, path BLOB,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (store, tag, created, path)
) WITHOUT ROWID;
"""
_VERSION = 1
_FLUSH_COUNT = 512  # checksums kept in memory before they are written
_FLUSH_SECONDS = 1.0
_BUSY_SECONDS = 0.2  # how long a reader waits while another process writes
_OPEN_SECONDS = 10.0  # the same, when the index is opened
_CLOSE_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_PENDING_KEPT = 100_000  # checksums kept for an index that is in use

_T = TypeVar("_T")


def default_path() -> Path:
    """Where the index of this user lies."""
    return Path(platformdirs.user_cache_dir("bentofs")) / "index.sqlite"


class Index:
    """One connection to an index."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: where it lies or is made; None for the user's own."""
        self._path = path or default_path()
        self._lock = threading.Lock()
        self._pending: dict[Identity, int] = {}
        self._flush_at = time.monotonic() + _FLUSH_SECONDS
        self._flush_count = _FLUSH_COUNT
        self._closed = False
        self._connection = self._open()

    def checksum(self, identity: Identity) -> int | None:
        """The CRC-32 of the file that had this identity."""
        with self._lock:
            pending = self._pending.get(identity)
            if pending is not None:
                return pending
            row = self._run(
                lambda connection: connection.execute(
                    "SELECT crc32 FROM checksums WHERE file=?", (_key(identity),)
                ).fetchone()
            )
        value = row[0] if row else None
        return value if isinstance(value, int) and 0 <= value < 1 << 32 else None

    def keep_checksum(self, identity: Identity, crc32: int) -> None:
        """Keep a CRC-32. Written to disk in batches; a crash loses at most the last second's."""
        with self._lock:
            self._pending[identity] = crc32
            if len(self._pending) >= self._flush_count or time.monotonic() > self._flush_at:
                self._flush()

    def archive_digest(self, archive: str) -> str | None:
        """The SHA-256 (hexadecimal) of an archive, named by its model's fingerprint and its format."""
        return self._digest("SELECT sha256 FROM archive_digests WHERE archive=?", (archive,))

    def keep_archive_digest(self, archive: str, sha256: str) -> None:
        """Keep an archive's SHA-256."""
        self._write("INSERT OR REPLACE INTO archive_digests VALUES (?, ?)", [(archive, sha256)])

    def file_digests(self, store: str, tag: str, created: str) -> dict[bytes, str]:
        """The SHA-256s recorded for a model's files, by path; `created`: the model's creation time."""
        with self._lock:
            rows = self._run(
                lambda connection: connection.execute(
                    "SELECT path, sha256 FROM file_digests WHERE store=? AND tag=? AND created=?", (store, tag, created)
                ).fetchall()
            )
        return dict(rows or ())

    def keep_file_digests(self, store: str, tag: str, created: str, digests: dict[bytes, str]) -> None:
        """Record the SHA-256s of a model's files."""
        rows = [(store, tag, created, path, sha256) for path, sha256 in digests.items()]
        self._write("INSERT OR REPLACE INTO file_digests VALUES (?, ?, ?, ?, ?)", rows)

    def forget_file_digests(self, store: str, tag: str) -> None:
        """Drop what was recorded for a model's files."""
        self._write("DELETE FROM file_digests WHERE store=? AND tag=?", [(store, tag)])

    def flush(self) -> None:
        """Write what is pending."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Write what is pending and let go."""
        # A thread that is stuck in the index must not keep the process from ending.
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._flush()
                self._closed = True
                self._connection.close()
            finally:
                self._lock.release()

    def _digest(self, query: str, parameters: tuple[object, ...]) -> str | None:
        with self._lock:
            row = self._run(lambda connection: connection.execute(query, parameters).fetchone())
        value = row[0] if row else None
        return value if isinstance(value, str) and len(value) == 64 else None

    def _write(self, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            with connection:
                connection.executemany(query, rows)

        with self._lock:
            self._run(write)

    def _flush(self) -> None:
        rows = [(_key(identity), crc32) for identity, crc32 in self._pending.items()]
        self._flush_at = time.monotonic() + _FLUSH_SECONDS
        if rows:

            def write(connection: sqlite3.Connection) -> bool:
                with connection:
                    connection.executemany("INSERT OR REPLACE INTO checksums VALUES (?, ?)", rows)
                return True

            if self._run(write):
                self._pending.clear()
                self._flush_count = _FLUSH_COUNT
            else:  # in use by another process: not again soon, since each try keeps a reader waiting
                self._flush_count = len(self._pending) + _PENDING_KEPT
                self._flush_at = time.monotonic() + _RETRY_SECONDS
                if len(self._pending) > _PENDING_KEPT:
                    self._pending.clear()

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Work on the index; where it turns out broken, go on with an empty one and answer None."""
        if self._closed:
            return None
        try:
            return work(self._connection)
        except sqlite3.Error as error:
            if "locked" in str(error):  # another process writes; what this one knows, it still knows in memory
                log.info("the index %s is in use (%s)", self._path, error)
                return None
            with suppress(sqlite3.Error):
                self._connection.close()
            if _is_damage(error):
                log.warning("the index %s failed (%s); what it knew will be measured again", self._path, error)
                self._set_aside()
                self._connection = self._open()
            else:  # the disk is full, or fails: the file may be whole
                log.warning("no index is kept from now on: %s: %s", self._path, error)
                self._connection = self._in_memory()
            with suppress(sqlite3.Error):
                return work(self._connection)
            return None

    def _open(self) -> sqlite3.Connection:
        try:
            return self._open_file()
        except sqlite3.DatabaseError as error:
            if "readonly" in str(error):
                log.warning("no index is kept: %s: %s", self._path, error)
                return self._in_memory()
            log.warning("the index %s is damaged (%s); what it knew will be measured again", self._path, error)
            self._set_aside()
        except OSError as error:
            log.warning("no index is kept: %s", error)
            return self._in_memory()
        try:
            return self._open_file()
        except (sqlite3.Error, OSError) as error:
            log.warning("no index is kept: %s: %s", self._path, error)
            return self._in_memory()

    def _open_file(self) -> sqlite3.Connection:
        """Raises sqlite3.Error, OSError."""
        deadline = time.monotonic() + _OPEN_SECONDS
        while True:
            try:
                return self._connect()
            except sqlite3.OperationalError as error:
                # Several processes that make the index at once do not wait for each other by themselves.
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _connect(self) -> sqlite3.Connection:
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
        if owner != os.geteuid():
            raise PermissionError(f"{folder} belongs to user {owner}, not to you")
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level="IMMEDIATE"
        )
        try:
            self._path.chmod(0o600)
            if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, _VERSION):
                raise sqlite3.DatabaseError("it was written by another version of bentofs")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version={_VERSION}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _in_memory(self) -> sqlite3.Connection:
        connection = sqlite3.connect(":memory:", check_same_thread=False)
        connection.executescript(_SCHEMA)
        return connection

    def _set_aside(self) -> None:
        """Make room for a new index."""
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self._path}{suffix}").replace(f"{self._path}.damaged{suffix}")


def _key(identity: Identity) -> str:
    """An identity as text: devices, inodes and times of distant years do not fit SQLite's integers."""
    return ":".join(map(str, identity))


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is no good, as opposed to the disk or another process in the way."""
    text = str(error)
    return "not a database" in text or "malformed" in text or "no such table" in text or "no such column" in text
