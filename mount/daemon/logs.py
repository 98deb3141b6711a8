"""The daemon's log: its levels, the form of its lines, and where they go.

Levels: ERROR: a request failed, and the daemon or its machine is to blame. WARNING: something was refused, or a part of
the mount does not work. INFO: events in the life of the mount. DEBUG: details for developers.

An event is one line, a traceback included. Only the stacks that SIGUSR1 asks for have several.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bentofs.mount.daemon.logfile import LogFile, write_stacks_to

LEVELS = ("debug", "info", "warning", "error")
FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JOURNAL_FORMAT = "%(name)s: %(message)s"  # the journal has the time and the level
_OURS = "bentofs"  # the logger of all our modules
_RECENT_BYTES = 64 << 10
_PROBLEMS = 10
_STDERR = 2


class OneLine(logging.Formatter):
    """Format each record as one line: line breaks, as in tracebacks, become `\\n`."""

    def format(self, record: logging.LogRecord) -> str:
        return "\\n".join(super().format(record).splitlines())


class _ForJournal(OneLine):
    """Begin each line with its priority, as sd-daemon(3) says."""

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelno
        priority = 3 if level >= logging.ERROR else 4 if level >= logging.WARNING else 6 if level >= logging.INFO else 7
        return f"<{priority}>{super().format(record)}"


class Problem(NamedTuple):
    """A record at WARNING or above."""

    time: float  # seconds since 1970
    level: str
    message: str


class RecentLog(logging.Handler):
    """Keeps the newest lines of the log, and the newest problems, in bounded memory."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(OneLine(FORMAT))
        self._lines: deque[bytes] = deque()
        self._size = 0  # bytes
        self._problems: deque[Problem] = deque(maxlen=_PROBLEMS)
        self.counts: dict[str, int] = {"WARNING": 0, "ERROR": 0}  # of all records

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record).encode("utf-8", "backslashreplace")[: _RECENT_BYTES - 1] + b"\n"
        self._lines.append(line)
        self._size += len(line)
        while self._size > _RECENT_BYTES:
            self._size -= len(self._lines.popleft())
        if record.levelno >= logging.WARNING:
            level = "ERROR" if record.levelno >= logging.ERROR else "WARNING"
            self.counts[level] += 1
            self._problems.append(Problem(record.created, level, "\\n".join(record.getMessage().splitlines())))

    def tail(self) -> bytes:
        """Return the newest lines, at most 64 KiB."""
        self.acquire()
        try:
            return b"".join(self._lines)
        finally:
            self.release()

    def problems(self) -> list[Problem]:
        """Return the newest problems, the newest last."""
        self.acquire()
        try:
            return list(self._problems)
        finally:
            self.release()


def start_logging(level: str, file: Path | None, *, takes_output: bool) -> RecentLog:
    """Set up the log of this process. Return its newest lines.

    `level`: one of LEVELS, for our own records. Other libraries log from WARNING on: their details may hold secrets.
    `file`: None for standard error; `takes_output`: standard output and error go to the file, too.
    """
    handler: logging.Handler
    if file is not None:
        handler = LogFile(file, takes_output=takes_output)
    else:
        handler = logging.StreamHandler()
        write_stacks_to(_STDERR)
    is_journal = file is None and leads_to_journal(os.environ)
    handler.setFormatter(_ForJournal(_JOURNAL_FORMAT) if is_journal else OneLine(FORMAT))
    recent = RecentLog()
    handler.setLevel(level.upper())
    logging.basicConfig(level=logging.WARNING, handlers=[handler, recent])
    logging.getLogger(_OURS).setLevel(min(handler.level, logging.WARNING))  # problems are kept in any case
    return recent


def leads_to_journal(environment: Mapping[str, str]) -> bool:
    """Tell whether standard error is systemd's journal (systemd.exec(5), $JOURNAL_STREAM)."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        look = os.fstat(_STDERR)
    except OSError:
        return False
    return (device, inode) == (str(look.st_dev), str(look.st_ino))
