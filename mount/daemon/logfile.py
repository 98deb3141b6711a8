"""The log of a mount in the background: bounded, with all that is written to standard error, as libfuse does."""

from __future__ import annotations

import logging.handlers
import os
from pathlib import Path

MAX_BYTES = 4 << 20  # of the log; as much again is kept of what was before


class LogFile(logging.handlers.RotatingFileHandler):
    """A handler of `logging`. Standard output and error of this process lead to the same file."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=1, encoding="utf-8", errors="backslashreplace")
        self._lead_here()

    def doRollover(self) -> None:  # noqa: N802 - logging's name
        """Begin a new file; the old one is kept as `.1`."""
        super().doRollover()
        self._lead_here()

    def _lead_here(self) -> None:
        if self.stream is not None:
            for descriptor in (1, 2):
                os.dup2(self.stream.fileno(), descriptor)
