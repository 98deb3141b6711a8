"""ErrorNotes: the `.error` notes beside refused files and directories. Each says why its file was not imported.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress

from bentofs.mount.incoming.names import ERROR_SUFFIX, final_path
from bentofs.mount.incoming.ownership import Ownership
from bentofs.store.errors import StoreError
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)


class ErrorNotes:
    """The notes in one spool."""

    def __init__(self, spool: str, owners: Ownership) -> None:
        """`spool`: the directory in which uploads lie."""
        self._spool = spool
        self._owners = owners

    def write(self, path: str, error: StoreError, uid: int, request: str | None = None) -> None:
        """Say in the log, and in a note beside it, why a user's file or directory was not imported. `request`: the id
        of its import in the record, if it has one."""
        shown = "" if request is None else f" (request {request})"
        log.warning("%s was not imported: %s%s", printable(path), error, shown)
        try:
            self._put(path, f"{printable(path)} was not imported: {error}{shown}\n", uid)
        except OSError as failed:
            log.warning("its note could not be written: %s", failed)

    def _put(self, path: str, text: str, uid: int) -> None:
        """Write the whole note beside the spool, then move it in: nobody reads a note without its text."""
        descriptor, draft = tempfile.mkstemp(prefix="note-", dir=os.path.dirname(self._spool))
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as note:
                self._owners.give(descriptor, uid)
                note.write(text)
            os.replace(draft, self._at(path))
        except BaseException:
            os.unlink(draft)
            raise

    def remove(self, path: str) -> None:
        """Remove the note that says why the last upload of this name was refused."""
        with suppress(OSError):
            os.unlink(self._at(final_path(path)))

    def _at(self, path: str) -> str:
        return f"{self._spool}/{path}{ERROR_SUFFIX}"
