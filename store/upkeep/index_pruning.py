"""Prune the index: remove the measurements of files and models that are gone from a store.

Rows that another process adds meanwhile stay. Each step holds the database for a moment only, so daemons go on.
"""

from __future__ import annotations

import functools
import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from bentofs.store.archives.index import identity_key, open_database, store_key
from bentofs.store.errors import StoreUnreadableError
from bentofs.store.model.model import Model

_BUSY_SECONDS = 5.0  # for which a step waits while another process writes
_BATCH = 10_000  # rows removed in one step
# Each table, with the column that begins with the identity of a file or the fingerprint of a model.
_TABLES = (
    ("checksums", "file"),
    ("model_infos", "file"),
    ("chunk_sizes", "content"),
    ("archive_digests", "archive"),
    ("archive_lengths", "archive"),
)
_SUBJECT = "substr({0}, 1, instr({0} || '/', '/') - 1)"

_T = TypeVar("_T")
_Values = tuple[object, ...]


class IndexPruning:
    """One pruning of an index. Several stores may be looked at before rows are removed."""

    def __init__(self, path: Path) -> None:
        """`path`: of the index.

        Raises:
            StoreUnreadableError: another process holds it.
        """
        self._begun = time.time_ns() // 1_000_000  # ms
        self._database = open_database(path, busy_seconds=_BUSY_SECONDS)
        self._run(lambda connection: connection.execute("CREATE TEMP TABLE living (subject TEXT PRIMARY KEY)"))

    def stores(self) -> list[str]:
        """Return the locations of all stores that have used this index."""
        rows = self._run(lambda connection: connection.execute("SELECT location FROM stores").fetchall())
        return [os.fsdecode(location) for (location,) in rows]

    def spare(self, models: Iterable[Model]) -> None:
        """Note that these models are there: their rows stay."""
        subjects = ((subject,) for model in models for subject in _subjects(model))
        while batch := list(itertools.islice(subjects, _BATCH)):
            self._run(functools.partial(_insert, batch))

    def rows(self) -> int:
        """Return the number of all rows."""
        return sum(self._run(functools.partial(_count, f"SELECT count(*) FROM {table}", ())) for table, _ in _TABLES)

    def stale_rows(self, stores: Iterable[str]) -> int:
        """Return how many rows `remove` would remove."""
        statement = "SELECT count(*) FROM {table} WHERE {stale}"
        return sum(self._run(functools.partial(_count, *query)) for query in self._queries(statement, stores))

    def remove(self, stores: Iterable[str], *, unowned: bool = True) -> int:
        """Remove the rows of these stores that no noted model needs. Return how many. `unowned`: also such rows of
        which no store is known, since an older release added them."""
        removed = 0
        statement = (
            "DELETE FROM {table} WHERE {column} IN (SELECT {column} FROM {table} WHERE {stale} LIMIT {batch}) "
            "AND added<{begun}"
        )
        for query in self._queries(statement, stores, unowned=unowned):
            while count := self._run(functools.partial(_remove, *query)):
                removed += count
        return removed

    def shrink(self) -> None:
        """Give the room of removed rows back to the file system."""
        self._database.shrink()

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _queries(self, statement: str, stores: Iterable[str], *, unowned: bool = True) -> Iterator[tuple[str, _Values]]:
        for location in (*((None,) if unowned else ()), *stores):
            owner = "store IS NULL" if location is None else "store=(SELECT id FROM stores WHERE location=?)"
            values = () if location is None else (store_key(location),)
            for table, column in _TABLES:
                subject = _SUBJECT.format(column)
                stale = f"{owner} AND added<{self._begun} AND {subject} NOT IN (SELECT subject FROM living)"
                yield (
                    statement.format(table=table, column=column, stale=stale, batch=_BATCH, begun=self._begun),
                    values,
                )

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        done = self._database.run(work)
        if done is None:
            raise StoreUnreadableError("the index is in use by another process: try once more")
        return done


def _subjects(model: Model) -> Iterator[str]:
    yield model.fingerprint()
    for entry in model.entries:
        if entry.identity is not None:
            yield identity_key(entry.identity)


def _insert(rows: list[tuple[str]], connection: sqlite3.Connection) -> bool:
    with connection:
        connection.executemany("INSERT OR IGNORE INTO living VALUES (?)", rows)
    return True


def _count(statement: str, values: _Values, connection: sqlite3.Connection) -> int:
    return int(connection.execute(statement, values).fetchone()[0])


def _remove(statement: str, values: _Values, connection: sqlite3.Connection) -> int:
    with connection:
        return connection.execute(statement, values).rowcount
