"""The causes of SQLite's errors, each made by SQLite itself."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.util.sqlite_causes import Cause, cause_of


def _busy(path: Path) -> None:
    other = sqlite3.connect(path)
    try:
        other.execute("BEGIN IMMEDIATE")
        _execute(path, "BEGIN IMMEDIATE")
    finally:
        other.close()


def _full(path: Path) -> None:
    _execute(path, "PRAGMA max_page_count=1", "INSERT INTO t VALUES (zeroblob(100000))")


def _read_only(path: Path) -> None:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        connection.execute("INSERT INTO t VALUES (1)")
    finally:
        connection.close()


def _not_there(path: Path) -> None:
    sqlite3.connect(path / "below a file").execute("SELECT 1")


def _not_a_database(path: Path) -> None:
    path.write_bytes(b"text" * 1000)
    _execute(path, "SELECT * FROM t")


def _malformed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:4100] = b"\xff\xff\xff\xff"  # the header of the table's page
    path.write_bytes(content)
    _execute(path, "SELECT * FROM t")


def _no_table(path: Path) -> None:
    _execute(path, "SELECT * FROM other")


def _no_column(path: Path) -> None:
    _execute(path, "SELECT y FROM t")


def _no_inserted_column(path: Path) -> None:
    _execute(path, "INSERT INTO t (y) VALUES (1)")


def _wrong_use(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.close()
    connection.execute("SELECT 1")


def _execute(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, timeout=0)
    try:
        for statement in statements:
            connection.execute(statement).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("work", "cause"),
    [
        (_busy, Cause.BUSY),
        (_full, Cause.FULL),
        (_read_only, Cause.DISK),
        (_not_there, Cause.DISK),
        (_not_a_database, Cause.DAMAGED),
        (_malformed, Cause.DAMAGED),
        (_no_table, Cause.DAMAGED),
        (_no_column, Cause.DAMAGED),
        (_no_inserted_column, Cause.DAMAGED),
        (_wrong_use, Cause.OTHER),
    ],
)
def test_thecause_of_an_error(work: Callable[[Path], None], cause: Cause, tmp_path: Path) -> None:
    path = tmp_path / "database"
    _execute(path, "CREATE TABLE t (x)")
    with pytest.raises(sqlite3.Error) as raised:
        work(path)
    assert cause_of(raised.value) is cause
    assert cause_of(sqlite3.DatabaseError(str(raised.value))) is cause, "Python 3.10 has only the text"
