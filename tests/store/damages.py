"""Damage that a database may suffer between two processes that use it."""

import os
import sqlite3
from pathlib import Path


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(10_000))


def another_version(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
