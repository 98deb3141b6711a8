"""Receipts: the entries that the imports of one `incoming/` have in the record of imports.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import errno
import os

from bentofs.mount.errors import errno_of
from bentofs.mount.incoming.names import final_path
from bentofs.store.errors import CancelledError, StoreError
from bentofs.store.publishing.base import Outcome
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.transfer.receipt import ReceiptState, request_id

_STATES = {
    Outcome.IMPORTED: ReceiptState.IMPORTED,
    Outcome.UNCHANGED: ReceiptState.UNCHANGED,
    Outcome.REPLACED: ReceiptState.REPLACED,
}


class Receipts:
    """Makes the receipts of one `incoming/`."""

    def __init__(self, log: ImportLog, session: str) -> None:
        """`session`: `Session.name`."""
        self.log = log
        self._session = session
        self._ends = False

    @property
    def ends(self) -> bool:
        """True once the mount ends. An upload that fails because of this stays in the record for the next mount."""
        return self._ends

    def end(self) -> None:
        """End all receipts: see `ends`."""
        self._ends = True

    def begin(self, path: str, uid: int) -> int:
        """Begin a receipt and return its number; 0 if the disk has no room for it."""
        return self.log.begin(self._session, path, uid)

    def request(self, number: int) -> str:
        """Return the id that joins a receipt, its note and its lines in the log."""
        return request_id(self._session, number)

    def refuse(self, number: int, error: StoreError) -> None:
        """Record why an import without an upload was refused."""
        self.log.finish(number, ReceiptState.REFUSED, error=str(error), errno=_errno_name(error))

    def finish(
        self,
        number: int,
        outcome: Outcome,
        ready: StagedImport,
        path: str | None = None,
        look: os.stat_result | None = None,
    ) -> None:
        """Record a model that was published. `path`: the name of the upload; `look`: the stat of its file."""
        info = ready.staged.info
        self.log.finish(
            number,
            _STATES[outcome],
            path=path,
            size=look.st_size if look is not None else None,
            mtime_ns=look.st_mtime_ns if look is not None else None,
            tag=str(info.tag),
            creation_time=info.creation_time.isoformat(),
            note=ready.staged.left_out,
        )


class UploadReceipt:
    """The receipt of one upload. It begins with the first bytes, and begins again after a refusal."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts
        self._log = receipts.log
        self._running: int | None = None
        self._refused: int | None = None
        self._told: StoreError | None = None  # the last error that was told

    @property
    def is_running(self) -> bool:
        """True from the first bytes to the outcome."""
        return self._running is not None

    @property
    def request(self) -> str | None:
        """Return the id of the running receipt (`Receipts.request`)."""
        return None if self._running is None else self._receipts.request(self._running)

    def begin(self, path: str, uid: int) -> None:
        """Record that bytes come. If the upload was refused before, withdraw the refusal: a child process that closed
        the file only seemed to end the upload."""
        refused, self._refused = self._refused, None
        if refused and self._log.resume(refused):
            self._running = refused
        else:
            self._running = self._receipts.begin(final_path(path), uid)

    def progress(self, size: int) -> None:
        """Record how many bytes have come."""
        if self._running is not None:
            self._log.progress(self._running, size)

    def whole(self, size: int, path: str | None) -> None:
        """Record that all bytes have come. `path`: the name of the upload if it is final. If this process dies before
        the upload is decided, the next mount decides it (`mount.incoming.recovery`)."""
        if self._running is None:
            return
        if path is not None:
            self._log.importing(self._running, size, path=path, size=size)
        else:
            self._log.importing(self._running, size)

    def is_news(self, error: StoreError) -> bool:
        """Return True if an error is to be told: it is not the one told last, nor due to the end of the mount."""
        return self._told is not error and not (self._receipts.ends and isinstance(error, CancelledError))

    def refuse(self, path: str, size: int, error: StoreError) -> None:
        """Record why the upload is refused. `path`: the name under which it was copied in."""
        self._told = error
        refused, self._running = self._running, None
        if refused is not None:
            self._log.finish(
                refused,
                ReceiptState.REFUSED,
                path=final_path(path),
                size=size,
                error=str(error),
                errno=_errno_name(error),
            )
        self._refused = refused

    def withdraw(self, why: str) -> None:
        """Record that the upload is not to be imported any more."""
        if self._running is not None and not self._receipts.ends:
            self._log.finish(self._running, ReceiptState.INTERRUPTED, error=why)
            self._running = None

    def number(self, path: str, uid: int) -> int:
        """Return the number of the running receipt. Begin one if none is running."""
        if not self._running:
            self._running = self._receipts.begin(path, uid)
        return self._running

    def finish(self, path: str, look: os.stat_result, outcome: Outcome, ready: StagedImport) -> None:
        """Record the import. `look`: of the file that was imported."""
        if self._running is not None:
            self._receipts.finish(self._running, outcome, ready, path, look)
            self._running = None


def _errno_name(error: StoreError) -> str | None:
    return errno.errorcode.get(errno_of(error, "import"))
