"""Baseline: the recorded SHA-256s of models' files, by which `bentofs verify` tells whether a model has changed.

The baseline is no cache: it cannot be measured again once a file has changed, so it lies in the user's state directory.
SHA-256s are recorded when a model is imported, first measured by a mount, or first verified. The key is the store (its
real path or its URL), the tag and the creation time: a model saved again under its old tag is a new one.

Threading: all methods may be called from any thread, and by several processes at once.
"""

from __future__ import annotations

import datetime
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from bentofs.store.errors import StoreUnreadableError
from bentofs.store.model.tag import Tag
from bentofs.store.paths import state_folder
from bentofs.store.util.sqlite import Database
from bentofs.store.util.urls import is_url

_SCHEMA = """
CREATE TABLE IF NOT EXISTS file_digests (
    store BLOB, tag TEXT, created TEXT, path BLOB,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (store, tag, created, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS roots (store BLOB PRIMARY KEY, inode INTEGER NOT NULL) WITHOUT ROWID;
"""
_VERSION = 1
_BUSY_SECONDS = 5.0  # how long a call waits while another process writes
_WHERE = "store=? AND tag=? AND created=?"


def default_path() -> Path:
    """Return the path of this user's baseline."""
    return state_folder() / "digests.sqlite"


class Baseline:
    """One connection to the baseline's database."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: the database, made if it is missing; None for the user's own. If it cannot be used, the log says
        so."""
        self._lock = threading.Lock()
        self._database = Database(
            path or default_path,
            _SCHEMA,
            _VERSION,
            what="record of digests",
            loss="it is kept beside as .damaged, and models are recorded anew",
            busy_seconds=_BUSY_SECONDS,
            busy_level=logging.WARNING,
        )

    def of(self, store: str, tag: Tag, created: datetime.datetime) -> dict[bytes, str]:
        """Return the recorded SHA-256s of a model's files, hexadecimal, by path. Empty if nothing is recorded.

        Raises:
            StoreUnreadableError: another process holds the database, so it cannot be read.
        """
        key = _key(store, tag, created)
        with self._lock:
            rows = self._database.run(
                lambda connection: connection.execute(
                    f"SELECT path, sha256 FROM file_digests WHERE {_WHERE}",
                    key,
                ).fetchall()
            )
        if rows is None:
            raise StoreUnreadableError("the record of SHA-256s is in use by another process: try once more")
        return {path: sha256 for path, sha256 in rows if isinstance(path, bytes) and isinstance(sha256, str)}

    def of_file(self, store: str, tag: Tag, created: datetime.datetime, path: str) -> str | None:
        """Return the recorded SHA-256 of one file of a model, hexadecimal; None if none is recorded, or if another
        process holds the database."""
        key = (*_key(store, tag, created), os.fsencode(path))
        with self._lock:
            row = self._database.run(
                lambda connection: connection.execute(
                    f"SELECT sha256 FROM file_digests WHERE {_WHERE} AND path=?", key
                ).fetchone()
            )
        return row[0] if row and isinstance(row[0], str) else None

    def record(
        self,
        store: str,
        tag: Tag,
        created: datetime.datetime,
        digests: Mapping[bytes, str],
        *,
        first: bool = False,
        is_there: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Record the SHA-256s of all of a model's files, by path. They replace the records of its tag.

        `first`: record only if nothing is recorded for this creation time. `is_there`: tells whether the store still
        has the model. Nobody can record another one meanwhile. Returns False if it has not, or if the SHA-256s could
        not be written; the log says why.
        """
        key, inode = _key(store, tag, created), _inode_of(store)

        def write(connection: sqlite3.Connection) -> bool:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                known = f"SELECT 1 FROM file_digests WHERE {_WHERE} LIMIT 1"
                if first and connection.execute(known, key).fetchone():
                    return True
                if not is_there():
                    return False
                connection.execute("DELETE FROM file_digests WHERE store=? AND tag=?", key[:2])
                if inode is not None:
                    connection.execute("INSERT OR REPLACE INTO roots VALUES (?, ?)", (key[0], inode))
                connection.executemany(
                    "INSERT INTO file_digests VALUES (?, ?, ?, ?, ?)",
                    [(*key, path, sha256) for path, sha256 in digests.items()],
                )
            return True

        with self._lock:
            return bool(self._database.run(write)) and self._database.is_on_disk

    def stores(self) -> list[str]:
        """Return the locations of all stores with recorded models."""
        with self._lock:
            rows = self._database.run(
                lambda connection: connection.execute("SELECT DISTINCT store FROM file_digests").fetchall()
            )
        return [os.fsdecode(store) for (store,) in rows or ()]

    def root_inode(self, store: str) -> int | None:
        """Return the inode of a local store's directory when one of its models was recorded last; None if that was by
        a release that did not keep it."""
        with self._lock:
            row = self._database.run(
                lambda connection: connection.execute(
                    "SELECT inode FROM roots WHERE store=?", (_store_key(store),)
                ).fetchone()
            )
        return row[0] if row else None

    def rows_by_tag(self, store: str) -> dict[str, int]:
        """Return how many files are recorded for each tag of a store."""
        with self._lock:
            rows = self._database.run(
                lambda connection: connection.execute(
                    "SELECT tag, count(*) FROM file_digests WHERE store=? GROUP BY tag", (_store_key(store),)
                ).fetchall()
            )
        return dict(rows or ())

    def forget(self, store: str, tag: str, is_gone: Callable[[], bool]) -> int:
        """Remove the records of a model, if it is gone. Nobody can record a model meanwhile. Return how many rows were
        removed."""

        def remove(connection: sqlite3.Connection) -> int:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                if not is_gone():
                    return 0
                statement = "DELETE FROM file_digests WHERE store=? AND tag=?"
                return connection.execute(statement, (_store_key(store), tag)).rowcount

        with self._lock:
            return self._database.run(remove) or 0

    def shrink(self) -> None:
        """Give the room of removed rows back to the file system."""
        with self._lock:
            self._database.shrink()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._database.close()


def _inode_of(store: str) -> int | None:
    """Return the inode of a local store's directory; None if there is none."""
    try:
        return None if is_url(store) else os.stat(store).st_ino
    except OSError:
        return None


def _key(store: str, tag: Tag, created: datetime.datetime) -> tuple[bytes, str, str]:
    return _store_key(store), str(tag), created.isoformat()


def _store_key(store: str) -> bytes:
    # A URL is not a path: `realpath` would make it depend on the working directory.
    return os.fsencode(store if is_url(store) else os.path.realpath(store))
