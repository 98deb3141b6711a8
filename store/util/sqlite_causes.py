"""The causes of SQLite's errors, by its result codes."""

from __future__ import annotations

import enum
import sqlite3


class UnusableFileError(sqlite3.DatabaseError):
    """The file is no database of this version."""


class Cause(enum.Enum):
    """The cause of an error of SQLite."""

    BUSY = enum.auto()  # another process writes
    FULL = enum.auto()  # the disk has no room
    DISK = enum.auto()  # the system refuses the file, which may be intact
    DAMAGED = enum.auto()  # the file itself, or its tables
    OTHER = enum.auto()


# SQLite's primary result codes (https://www.sqlite.org/rescode.html).
_CAUSES = {
    1: Cause.DAMAGED,  # ERROR: a table or a column is missing
    5: Cause.BUSY,  # BUSY
    6: Cause.BUSY,  # LOCKED
    8: Cause.DISK,  # READONLY
    10: Cause.DISK,  # IOERR
    11: Cause.DAMAGED,  # CORRUPT
    13: Cause.FULL,  # FULL
    14: Cause.DISK,  # CANTOPEN
    26: Cause.DAMAGED,  # NOTADB
}
_PRIMARY = 0xFF  # the bits of a primary result code

# SQLite's texts for these codes. Python 3.10 gives no codes.
_CODES_BY_TEXT = {
    "locked": 5,
    "readonly": 8,
    "I/O error": 10,
    "malformed": 11,
    "is full": 13,
    "unable to open": 14,
    "not a database": 26,
    "no such": 1,
    "has no column": 1,
}


def cause_of(error: sqlite3.Error) -> Cause:
    """Return the cause of an error."""
    if isinstance(error, UnusableFileError):
        return Cause.DAMAGED
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        code = next((code for text, code in _CODES_BY_TEXT.items() if text in str(error)), 0)
    return _CAUSES.get(code & _PRIMARY, Cause.OTHER)
