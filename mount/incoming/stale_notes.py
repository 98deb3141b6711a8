"""Stale notes: `.error` notes whose file has been gone for long. That happens where servers remove refused files, or
write under their own names. Nobody else would remove these notes.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from bentofs.mount.incoming.names import ERROR_SUFFIX

_SECONDS = 24 * 3600  # for which a note stays
_SAYS = b" was not imported: "  # in each of our notes
_LOOKS_AT = 8192  # bytes: more than the longest path


def remove_stale_notes(spool: str) -> list[str]:
    """Remove our notes that are older than a day and stand beside no file. Return their paths in the spool."""
    removed = []
    for folder, _, files in os.walk(spool):
        names = set(files)
        for name in files:
            path = os.path.join(folder, name)
            if name.endswith(ERROR_SUFFIX) and name.removesuffix(ERROR_SUFFIX) not in names and _is_stale(path):
                with suppress(OSError):
                    os.unlink(path)
                    removed.append(os.path.relpath(path, spool))
    return removed


def _is_stale(path: str) -> bool:
    try:
        look = os.lstat(path)
        if not stat.S_ISREG(look.st_mode) or time.time() - look.st_mtime < _SECONDS:
            return False
        if os.path.lexists(path.removesuffix(ERROR_SUFFIX)):  # a directory
            return False
        with open(path, "rb") as note:
            return _SAYS in note.read(_LOOKS_AT)
    except OSError:
        return False
