"""Log a mount in the background to a bounded file. Output to standard error, such as libfuse's, goes there, too."""

from __future__ import annotations

import logging.handlers
import os
from pathlib import Path

MAX_BYTES = 4 << 20  # of the log; one older file of the same size is kept


class LogFile(logging.handlers.RotatingFileHandler):
    """A `logging` handler that also redirects standard output and error of this process to its file."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=1, encoding="utf-8", errors="backslashreplace")
        self._lead_here()

    def doRollover(self) -> None:  # noqa: N802 - logging's name
        """Begin a new file. Keep the old one as `.1`."""
        super().doRollover()
        self._lead_here()

    def _lead_here(self) -> None:
        if self.stream is not None:
            for descriptor in (1, 2):
                os.dup2(self.stream.fileno(), descriptor)
