"""Log a mount to a bounded file. A daemon's output to standard error, such as libfuse's, goes there, too."""

from __future__ import annotations

import faulthandler
import logging.handlers
import os
import signal
from pathlib import Path

MAX_BYTES = 4 << 20  # of the log; one older file of the same size is kept


class LogFile(logging.handlers.RotatingFileHandler):
    """A `logging` handler that writes to a file, and begins a new one in time."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, *, takes_output: bool = True) -> None:
        """`takes_output`: also redirect standard output and error of this process to the file."""
        self._takes_output = takes_output
        super().__init__(path, maxBytes=max_bytes, backupCount=1, encoding="utf-8", errors="backslashreplace")
        self._lead_here()

    def doRollover(self) -> None:  # noqa: N802 - logging's name
        """Begin a new file. Keep the old one as `.1`."""
        super().doRollover()
        self._lead_here()

    def _lead_here(self) -> None:
        if self.stream is not None:
            if self._takes_output:
                for descriptor in (1, 2):
                    os.dup2(self.stream.fileno(), descriptor)
            write_stacks_to(self.stream.fileno())


def write_stacks_to(descriptor: int) -> None:
    """Make SIGUSR1 write the stacks of all threads to a descriptor. That works even if no thread can run Python."""
    faulthandler.register(signal.SIGUSR1, file=descriptor, all_threads=True)
