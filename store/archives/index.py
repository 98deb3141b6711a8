"""The index: all measurements of files' bytes, kept on disk in SQLite under the user's cache directory.

Losing or corrupting it costs only the time to measure again (`store.util.sqlite`). Several processes may use one index
at once.

Threading: all methods may be called from any thread; one lock protects the one connection.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
import threading
import time
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bentofs.store.paths import cache_folder
from bentofs.store.storage.base import Identity
from bentofs.store.util.sqlite import Database
from bentofs.store.util.threads import started
from bentofs.store.util.urls import is_url

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checksums (
    file TEXT PRIMARY KEY,
    crc32 INTEGER NOT NULL,
    store INTEGER, added INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS chunk_sizes (
    content TEXT, codec TEXT,
    effort INTEGER NOT NULL, worth_it INTEGER NOT NULL, sizes BLOB NOT NULL,
    store INTEGER, added INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (content, codec)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archive_digests (
    archive TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    store INTEGER, added INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS archive_lengths (
    archive TEXT PRIMARY KEY,
    length INTEGER NOT NULL,
    store INTEGER, added INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model_infos (
    file TEXT PRIMARY KEY,
    info TEXT NOT NULL,
    store INTEGER, added INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stores (
    id INTEGER PRIMARY KEY,
    location BLOB NOT NULL UNIQUE
);
"""
_VERSION = 4
# Since version 2, a row tells which store it is of, and when it was added (ms since 1970): for pruning.
_UPGRADES = {
    1: [
        statement
        for table in ("checksums", "chunk_sizes", "archive_digests")
        for statement in (
            f"ALTER TABLE {table} ADD COLUMN store INTEGER",
            f"ALTER TABLE {table} ADD COLUMN added INTEGER NOT NULL DEFAULT 0",
        )
    ],
    2: [],  # since version 3, there are `model_infos`
    3: [],  # since version 4, there are `archive_lengths`
}
_FLUSH_COUNT = 512  # checksums, or lengths, kept in memory before they are written
_FLUSH_SECONDS = 1.0
_BUSY_SECONDS = 0.2  # for which a reader waits while another process writes
_CLOSE_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_PENDING_KEPT = 10_000  # checksums, or lengths, kept for an index that is in use
_ASKED = 500  # in one query: SQLite takes 999 at least
_INFOS_KEPT = 200_000  # rows of `model_infos`; the oldest go first
_INFOS_UNCOUNTED = 10_000  # rows added between two counts


class ChunkSizes(NamedTuple):
    """The known facts about some content's compressed chunks."""

    effort: int  # of the codec
    worth_it: bool  # by a sample
    sizes: array[int] = array("I")  # never changed; empty if not measured


SizesRow = tuple[str, str, ChunkSizes]  # content, codec, and sizes


def default_path() -> Path:
    """Return the path of this user's index."""
    return cache_folder() / "index.sqlite"


def open_database(path: Path | None = None, *, busy_seconds: float = _BUSY_SECONDS) -> Database:
    """Open the database of an index. `path`: made if it is missing; None for the user's own."""
    return Database(
        path or default_path,
        _SCHEMA,
        _VERSION,
        what="index",
        loss="what it knew will be measured again",
        busy_seconds=busy_seconds,
        upgrades=_UPGRADES,
    )


class Index:
    """One connection to an index."""

    def __init__(self, path: Path | None = None, *, store: str | None = None) -> None:
        """`path`: the index, made if it is missing; None for the user's own. `store`: the location of the store that is
        measured, so that `bentofs clean` can tell whose rows these are."""
        self._store = store_key(store) if store is not None else None
        self._lock = threading.Lock()
        self._pending: dict[Identity, int] = {}
        self._pending_lengths: dict[str, int] = {}
        self._timer: threading.Timer | None = None  # which will flush pending checksums
        self._flush_count = _FLUSH_COUNT
        self._infos_uncounted = _INFOS_UNCOUNTED
        self._database = open_database(path)

    @property
    def is_on_disk(self) -> bool:
        """True if the index is kept on disk; false while it is in memory."""
        return self._database.is_on_disk

    def checksum(self, identity: Identity) -> int | None:
        """Return the CRC-32 of the file with this identity; None if it is unknown."""
        with self._lock:
            pending = self._pending.get(identity)
            if pending is not None:
                return pending
            row = self._database.run(
                lambda connection: connection.execute(
                    "SELECT crc32 FROM checksums WHERE file=?", (identity_key(identity),)
                ).fetchone()
            )
        return row[0] if row and _is_crc32(row[0]) else None

    def checksums(self, identities: Sequence[Identity]) -> dict[Identity, int]:
        """Do what `checksum` does, but for many files at once. Return the known ones."""
        found: dict[Identity, int] = {}
        for start in range(0, len(identities), _ASKED):
            keys = {identity_key(identity): identity for identity in identities[start : start + _ASKED]}
            query = f"SELECT file, crc32 FROM checksums WHERE file IN ({','.join('?' * len(keys))})"
            with self._lock:
                rows = self._database.run(functools.partial(_fetch_all, query, tuple(keys)))
                found |= {keys[file]: value for file, value in rows or () if _is_crc32(value)}
                if self._pending:
                    found |= {each: self._pending[each] for each in keys.values() if each in self._pending}
        return found

    def keep_checksum(self, identity: Identity, crc32: int) -> None:
        """Keep a CRC-32. They are flushed to disk in batches; a crash loses at most the last second's."""
        self.keep_checksums({identity: crc32})

    def keep_checksums(self, crc32s: Mapping[Identity, int]) -> None:
        """Do what `keep_checksum` does, but for many files at once."""
        with self._lock:
            self._pending.update(crc32s)
            self._flush_soon()

    def infos(self, files: Sequence[Identity]) -> dict[Identity, str]:
        """Return what is known of these `model.yaml` (`store.catalog.known_infos`)."""
        found: dict[Identity, str] = {}
        for start in range(0, len(files), _ASKED):
            keys = {identity_key(file): file for file in files[start : start + _ASKED]}
            query = f"SELECT file, info FROM model_infos WHERE file IN ({','.join('?' * len(keys))})"
            with self._lock:
                rows = self._database.run(functools.partial(_fetch_all, query, tuple(keys)))
            found |= {keys[file]: info for file, info in rows or () if isinstance(info, str)}
        return found

    def keep_infos(self, rows: Iterable[tuple[Identity, str]]) -> None:
        """Keep what `model.yaml` say. Beyond a number, the oldest rows are dropped."""
        kept = [(identity_key(file), info) for file, info in rows]
        self._write("INSERT OR REPLACE INTO model_infos VALUES (?, ?, {owner})", kept)
        with self._lock:
            self._infos_uncounted += len(kept)
            if self._infos_uncounted >= _INFOS_UNCOUNTED:
                self._infos_uncounted = 0
                self._database.run(_drop_oldest_infos)

    def chunk_sizes(self, content: str, codec: str) -> ChunkSizes | None:
        """Return the known sizes of some content's chunks under a codec; None if there are none."""
        query = "SELECT effort, worth_it, sizes FROM chunk_sizes WHERE content=? AND codec=?"
        with self._lock:
            row = self._database.run(lambda connection: connection.execute(query, (content, codec)).fetchone())
        if not row or not isinstance(row[0], int) or not isinstance(row[2], bytes) or len(row[2]) % 4:
            return None
        sizes = array("I", row[2])
        if sys.byteorder == "big":
            sizes.byteswap()
        return ChunkSizes(row[0], bool(row[1]), sizes)

    def keep_chunk_sizes(self, rows: Iterable[SizesRow]) -> None:
        """Keep sizes of chunks, by content and codec."""
        self._write(
            "INSERT OR REPLACE INTO chunk_sizes VALUES (?, ?, ?, ?, ?, {owner})",
            [(content, codec, effort, worth_it, _as_blob(sizes)) for content, codec, (effort, worth_it, sizes) in rows],
        )

    def forget_chunk_sizes(self, content: str, codec: str) -> None:
        """Drop sizes that turned out wrong, and all lengths, since some come from them."""
        self._write("DELETE FROM chunk_sizes WHERE content=? AND codec=?", [(content, codec)])
        self.forget_archive_lengths()

    def archive_lengths(self, archives: Sequence[str]) -> dict[str, int]:
        """Return the known lengths in bytes of compressed archives, by name (`archive_digest`)."""
        query = f"SELECT archive, length FROM archive_lengths WHERE archive IN ({','.join('?' * len(archives))})"
        with self._lock:
            rows = self._database.run(functools.partial(_fetch_all, query, tuple(archives)))
            found = {name: length for name, length in rows or () if isinstance(length, int) and length > 0}
            pending = self._pending_lengths
            return found | {name: pending[name] for name in archives if name in pending}

    def keep_archive_length(self, archive: str, length: int) -> None:
        """Keep the length of a compressed archive. They are flushed to disk in batches, like checksums."""
        with self._lock:
            self._pending_lengths[archive] = length
            self._flush_soon()

    def forget_archive_lengths(self) -> None:
        """Drop all lengths: one turned out wrong. They follow from the sizes of chunks."""
        with self._lock:
            self._pending_lengths.clear()
            self._database.run(_drop_lengths)

    def archive_digest(self, archive: str) -> str | None:
        """Return the SHA-256 (hexadecimal) of an archive; None if it is unknown.

        `archive`: its name, made of the model's fingerprint and the format."""
        return self._digest("SELECT sha256 FROM archive_digests WHERE archive=?", (archive,))

    def keep_archive_digest(self, archive: str, sha256: str) -> None:
        """Keep an archive's SHA-256."""
        self._write("INSERT OR REPLACE INTO archive_digests VALUES (?, ?, {owner})", [(archive, sha256)])

    def flush(self) -> None:
        """Flush pending checksums and lengths to disk."""
        with self._lock:
            self._timer = None
            self._flush()

    def close(self) -> None:
        """Flush pending checksums and lengths, and close the connection."""
        # A thread that is stuck in the index must not keep the process from ending.
        if self._lock.acquire(timeout=_CLOSE_SECONDS):
            try:
                self._flush()
                if self._timer is not None:
                    self._timer.cancel()
                self._database.close()
            finally:
                self._lock.release()

    def _digest(self, query: str, parameters: tuple[object, ...]) -> str | None:
        with self._lock:
            row = self._database.run(lambda connection: connection.execute(query, parameters).fetchone())
        value = row[0] if row else None
        return value if isinstance(value, str) and len(value) == 64 else None

    def _write(self, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            self._database.run(lambda connection: self._insert(connection, query, rows))

    def _insert(self, connection: sqlite3.Connection, query: str, rows: Sequence[tuple[object, ...]]) -> bool:
        """Run a statement for each row. `{owner}` in it stands for the columns `store` and `added`."""
        with connection:
            store: int | None = None
            if self._store is not None:
                connection.execute("INSERT OR IGNORE INTO stores (location) VALUES (?)", (self._store,))
                store = connection.execute("SELECT id FROM stores WHERE location=?", (self._store,)).fetchone()[0]
            owner = f"{'NULL' if store is None else store}, {time.time_ns() // 1_000_000}"
            connection.executemany(query.format(owner=owner), rows)
        return True

    def _flush_soon(self) -> None:
        """Flush now if much is pending, else within a moment."""
        if len(self._pending) + len(self._pending_lengths) >= self._flush_count:
            self._flush()
        elif self._timer is None:
            self._flush_in(_FLUSH_SECONDS)

    def _flush_in(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self.flush)
        timer.daemon = True
        self._timer = timer if started(timer) else None  # else the next row tries again

    def _flush(self) -> None:
        rows = [(identity_key(identity), crc32) for identity, crc32 in self._pending.items()]
        if self._flush_rows("checksums", rows):
            self._pending.clear()
        if self._flush_rows("archive_lengths", list(self._pending_lengths.items())):
            self._pending_lengths.clear()
        pending = len(self._pending) + len(self._pending_lengths)
        self._flush_count = pending + _PENDING_KEPT if pending else _FLUSH_COUNT
        if pending:  # in use by another process: do not retry soon, since each try keeps a reader waiting
            if pending > _PENDING_KEPT:
                self._pending.clear()
                self._pending_lengths.clear()
            if self._timer is None:
                self._flush_in(_RETRY_SECONDS)

    def _flush_rows(self, table: str, rows: Sequence[tuple[str, int]]) -> bool:
        """Write pending rows. Return True if none is pending any more."""
        query = f"INSERT OR REPLACE INTO {table} VALUES (?, ?, {{owner}})"
        return not rows or bool(self._database.run(lambda connection: self._insert(connection, query, rows)))


def _drop_oldest_infos(connection: sqlite3.Connection) -> bool:
    count = int(connection.execute("SELECT count(*) FROM model_infos").fetchone()[0])
    if count > _INFOS_KEPT:
        oldest = "SELECT file FROM model_infos ORDER BY added LIMIT ?"
        with connection:
            connection.execute(f"DELETE FROM model_infos WHERE file IN ({oldest})", (count - _INFOS_KEPT,))
    return True


def _drop_lengths(connection: sqlite3.Connection) -> bool:
    with connection:
        connection.execute("DELETE FROM archive_lengths")
    return True


def _fetch_all(query: str, parameters: tuple[str, ...], connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(query, parameters).fetchall()


def _is_crc32(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 32


def _as_blob(sizes: array[int]) -> bytes:
    """Encode sizes: little-endian, four bytes each."""
    if sys.byteorder == "big":
        sizes = array("I", sizes)
        sizes.byteswap()
    return sizes.tobytes()


def identity_key(identity: Identity) -> str:
    """Return an identity as text: devices, inodes and times of distant years do not fit SQLite's integers."""
    return "%d:%d:%d:%d:%d" % identity  # noqa: UP031 - twice as fast as the alternatives


def store_key(location: str) -> bytes:
    """Return a store's location as a key: its real path, or its URL."""
    return os.fsencode(location if is_url(location) else os.path.realpath(location))
