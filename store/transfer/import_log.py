"""ImportLog: the record of the imports into one store through incoming/, kept over restarts.

It lies in the staging area. All mounts and command lines on the store share it. If it is lost, only the record is lost
(store/util/sqlite.py): imports go on, imported names have no answer any more, and the log says so.

Threading: all methods may be called from any thread.
"""

from __future__ import annotations

import datetime
import logging
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from bentofs.store.transfer.receipt import RECEIPT_COLUMNS, Receipt, ReceiptState, receipt_of
from bentofs.store.util.sqlite import Database

log = logging.getLogger(__name__)

ENDED_KEPT = 10_000  # receipts of imports that have ended
ANSWERING_KEPT = 100_000  # receipts that answer for a name
_PRUNE_EVERY = 256  # imports
_BUSY_SECONDS = 5.0  # a call waits so long while another process writes
_MAX_SENTENCE = 2000  # characters
_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    change INTEGER NOT NULL,
    session TEXT NOT NULL,
    path BLOB NOT NULL,
    uid INTEGER NOT NULL,
    state TEXT NOT NULL,
    size INTEGER,
    mtime_ns TEXT, -- nanoseconds of distant years do not fit 64 bits
    received INTEGER NOT NULL,
    started TEXT NOT NULL,
    ended TEXT,
    tag TEXT,
    creation_time TEXT,
    sha256 TEXT,
    error TEXT,
    errno TEXT,
    answers INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS receipts_by_change ON receipts (change);
CREATE INDEX IF NOT EXISTS receipts_running ON receipts (id) WHERE ended IS NULL;
DROP INDEX IF EXISTS receipts_answering; -- of releases in which a path answered everybody
CREATE UNIQUE INDEX IF NOT EXISTS receipts_answering_user ON receipts (path, uid) WHERE answers;
CREATE TABLE IF NOT EXISTS notes (receipt INTEGER PRIMARY KEY, note TEXT NOT NULL);
"""
_NEXT_CHANGE = "(SELECT coalesce(max(change), 0) + 1 FROM receipts)"

_T = TypeVar("_T")


class ImportLog:
    """One connection to the record of one store."""

    def __init__(self, path: Path) -> None:
        """`path`: `StagingArea.receipts`. Never raises: a record that cannot be used is reported in the log."""
        self._lock = threading.Lock()
        self._finished = 0
        self._running: set[int] = set()
        self._ended: Counter[ReceiptState] = Counter()
        self._database = Database(
            path,
            _SCHEMA,
            _VERSION,
            what="record of imports",
            loss="it begins anew",
            busy_seconds=_BUSY_SECONDS,
            busy_level=logging.WARNING,
        )

    @property
    def is_on_disk(self) -> bool:
        """True for the record itself, False for an empty one in its place."""
        return self._database.is_on_disk

    def begin(self, session: str, path: str, uid: int) -> int:
        """Record a new import as RECEIVING. `session`: `Session.name`. Return its id. It is 0, which no receipt has, if
        the disk has no room for it."""
        row = (session, os.fsencode(path), uid, ReceiptState.RECEIVING.value, _now())

        def insert(connection: sqlite3.Connection) -> int:
            with connection:
                return (
                    connection.execute(
                        "INSERT INTO receipts (change, session, path, uid, state, received, started) "
                        f"VALUES ({_NEXT_CHANGE}, ?, ?, ?, ?, 0, ?)",
                        row,
                    ).lastrowid
                    or 0
                )

        number = self._run(insert) or 0
        with self._lock:
            self._running.add(number)
        return number

    def resume(self, receipt: int) -> bool:
        """Set a REFUSED import to RECEIVING again: its program goes on. False if it is not in the record."""
        is_resumed = bool(
            self._write(
                f"UPDATE receipts SET change={_NEXT_CHANGE}, state=?, ended=NULL, error=NULL, errno=NULL WHERE id=?",
                (ReceiptState.RECEIVING.value, receipt),
            )
        )
        if is_resumed:
            with self._lock:
                self._running.add(receipt)
        return is_resumed

    def progress(self, receipt: int, received: int) -> None:
        """Record how many bytes have come. Cheap enough for once a second."""
        self._write(
            f"UPDATE receipts SET change={_NEXT_CHANGE}, received=? WHERE id=? AND ended IS NULL", (received, receipt)
        )

    def importing(self, receipt: int, received: int, *, path: str | None = None, size: int | None = None) -> None:
        """Set an import whose bytes are all here to IMPORTING. None keeps the earlier value. `path`: the new name, if
        the upload was renamed; `size`: of the upload, if it is a file in a spool."""
        moved = path if path is None else os.fsencode(path)
        self._write(
            f"UPDATE receipts SET change={_NEXT_CHANGE}, state=?, received=?, path=coalesce(?, path), "
            "size=coalesce(?, size) WHERE id=? AND ended IS NULL",
            (ReceiptState.IMPORTING.value, received, moved, size, receipt),
        )

    def finish(
        self,
        receipt: int,
        state: ReceiptState,
        *,
        path: str | None = None,
        size: int | None = None,
        mtime_ns: int | None = None,
        tag: str | None = None,
        creation_time: str | None = None,
        sha256: str | None = None,
        error: str | None = None,
        errno: str | None = None,
        note: str | None = None,
    ) -> None:
        """Record the end of an import. None keeps the earlier value. `path`: the new name, if the upload was renamed.
        After a success `answer` gives this receipt for its path and uploader."""
        sentence = error and error.encode(errors="backslashreplace").decode()[:_MAX_SENTENCE]
        moved = path if path is None else os.fsencode(path)
        values = (moved, state.value, size, size, _text(mtime_ns), _now(), tag, creation_time, sha256, sentence, errno)

        def update(connection: sqlite3.Connection) -> None:
            with connection:
                if state.successful:
                    connection.execute(
                        "UPDATE receipts SET answers=0 WHERE answers AND id<>? "
                        "AND path=coalesce(?, (SELECT path FROM receipts WHERE id=?)) "
                        "AND uid=(SELECT uid FROM receipts WHERE id=?)",
                        (receipt, moved, receipt, receipt),
                    )
                connection.execute(
                    f"UPDATE receipts SET change={_NEXT_CHANGE}, path=coalesce(?, path), state=?, "
                    "size=coalesce(?, size), received=coalesce(?, received), mtime_ns=coalesce(?, mtime_ns), ended=?, "
                    "tag=coalesce(?, tag), creation_time=coalesce(?, creation_time), sha256=coalesce(?, sha256), "
                    "error=coalesce(?, error), errno=coalesce(?, errno) WHERE id=?",
                    (*values, receipt),
                )
                if state.successful:
                    connection.execute("UPDATE receipts SET answers=1 WHERE id=?", (receipt,))
                if note is not None:
                    connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (receipt, note[:_MAX_SENTENCE]))
                self._finished += 1
                if self._finished % _PRUNE_EVERY == 0:
                    _prune(connection)

        self._run(update)
        with self._lock:
            if receipt in self._running:
                self._running.remove(receipt)
                self._ended[state] += 1

    def tally(self) -> tuple[int, dict[str, int]]:
        """Return the number of running imports of this process, and the numbers of ended ones by their state."""
        with self._lock:
            return len(self._running), {state.value: self._ended[state] for state in ReceiptState if state.ended}

    def answer(self, path: str, uid: int | None) -> Receipt | None:
        """Return a user's newest success under a path below incoming/, unless it was forgotten. With None: any
        user's."""
        found = self._select(
            "WHERE answers AND path=? AND uid=coalesce(?, uid) ORDER BY ended DESC LIMIT 1", (os.fsencode(path), uid)
        )
        return found[0] if found else None

    def set_mtime(self, path: str, uid: int, mtime_ns: int) -> None:
        """Change the mtime of the receipt that `answer` gives a user for a path."""
        self._write(
            "UPDATE receipts SET mtime_ns=? WHERE answers AND path=? AND uid=?",
            (_text(mtime_ns), os.fsencode(path), uid),
        )

    def set_sha256(self, receipt: int, sha256: str) -> None:
        """Record the SHA-256 of the upload, hexadecimal, which became known after the import ended."""
        self._write("UPDATE receipts SET sha256=? WHERE id=?", (sha256, receipt))

    def forget(self, path: str, uid: int) -> None:
        """Make `answer` give a user nothing for a path any more. The outcome stays in the record."""
        self._write("UPDATE receipts SET answers=0 WHERE answers AND path=? AND uid=?", (os.fsencode(path), uid))

    def recent(self, limit: int = 100) -> list[Receipt]:
        """Return the newest receipts, running ones included, newest first."""
        return self._select("ORDER BY id DESC LIMIT ?", (limit,))

    def since(self, change: int, limit: int = 1000) -> list[Receipt]:
        """Return the receipts that changed after the one with this `change`, in the order of their changes. 0 gives
        all."""
        return self._select("WHERE change>? ORDER BY change LIMIT ?", (change, limit))

    def of_dead(self, is_alive: Callable[[str], bool]) -> list[tuple[str, Receipt]]:
        """Return the running imports of dead sessions (`StagingArea.is_alive`), each with its session's name."""
        rows = self._run(
            lambda connection: connection.execute(
                f"SELECT session, {RECEIPT_COLUMNS} FROM receipts WHERE ended IS NULL ORDER BY id"
            ).fetchall()
        )
        alive = {session: is_alive(session) for session in {row[0] for row in rows or ()}}
        found = ((session, receipt_of(tuple(row))) for session, *row in rows or () if not alive[session])
        return [(session, receipt) for session, receipt in found if receipt is not None]

    def interrupt(self, receipt: int) -> None:
        """Set a running import to INTERRUPTED: its process has ended."""
        self._write(
            f"UPDATE receipts SET change={_NEXT_CHANGE}, state=?, ended=?, error=? WHERE id=? AND ended IS NULL",
            (ReceiptState.INTERRUPTED.value, _now(), "bentofs ended before the import did", receipt),
        )

    def return_to_disk(self) -> None:
        """Write the record again if somebody removed it."""
        with self._lock:
            self._database.return_to_disk()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._database.close()

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        with self._lock:
            return self._database.run(work)

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        """Run a statement. Return how many receipts it changed."""

        def write(connection: sqlite3.Connection) -> int:
            with connection:
                return connection.execute(statement, values).rowcount

        return self._run(write) or 0

    def _select(self, where: str, values: tuple[object, ...]) -> list[Receipt]:
        rows = self._run(
            lambda connection: connection.execute(f"SELECT {RECEIPT_COLUMNS} FROM receipts {where}", values).fetchall()
        )
        return [receipt for row in rows or () if (receipt := receipt_of(row)) is not None]


def _prune(connection: sqlite3.Connection) -> None:
    for statement, kept in (
        ("UPDATE receipts SET answers=0 WHERE answers", ANSWERING_KEPT),
        ("DELETE FROM receipts WHERE NOT answers AND ended IS NOT NULL", ENDED_KEPT),
    ):
        condition = statement.partition(" WHERE ")[2]
        connection.execute(
            f"{statement} AND id <= (SELECT id FROM receipts WHERE {condition} ORDER BY id DESC LIMIT 1 OFFSET ?)",
            (kept,),
        )
    connection.execute("DELETE FROM notes WHERE receipt NOT IN (SELECT id FROM receipts)")


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds")


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
