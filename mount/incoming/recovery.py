"""Recovery: decide the uploads that were whole but undecided when the mount before ended.

Their programs were told that they failed, and may not come back. Nobody else would ever import these uploads. Recovery
replaces no other model of the same tag: that model may have come later.

Knows no FUSE. Threading: `start` in any thread. Uploads are decided in a thread of their own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.upload import Upload
from bentofs.store.errors import CancelledError, StoreError
from bentofs.store.transfer.receipt import Receipt, ReceiptState
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)


class Recovery:
    """The recovery of one spool that a new mount took over."""

    def __init__(self, spool: Spool, reports: Reports, finalizer: Finalizer) -> None:
        self._spool = spool
        self._reports = reports
        self._finalizer = finalizer
        self._thread: threading.Thread | None = None

    def start(self, dead: Sequence[Receipt]) -> None:
        """Decide these imports in the background, if their upload was whole and has not changed since. They are running
        in the record when this returns."""
        uploads = [upload for receipt in dead if (upload := self._take(receipt)) is not None]
        if uploads:
            self._thread = threading.Thread(target=self._decide, args=(uploads,), name="recovery", daemon=True)
            self._thread.start()

    def join(self) -> None:
        """Wait until all of them are decided."""
        if self._thread is not None:
            self._thread.join()

    def _take(self, receipt: Receipt) -> Upload | None:
        if receipt.state is not ReceiptState.IMPORTING or receipt.size is None:
            return None
        with self._spool.locked() as names:
            upload = names.find(receipt.path)
            if upload is None or not upload.kind.is_archive or upload.file.size != receipt.size:
                return None
            if names.handles(upload):
                return None
            names.hold(upload)
            upload.replace_nothing()
        self._reports.begin(upload)
        self._reports.whole(upload, is_final=not self._spool.is_on_its_way(upload.path))
        return upload

    def _decide(self, uploads: Sequence[Upload]) -> None:
        for upload in uploads:
            shown = printable(upload.path)
            try:
                self._finalizer.finalize(upload)
            except CancelledError as error:
                log.info("%s is not imported now: %s", shown, error)
            except StoreError:
                log.debug("%s was refused", shown)  # its note and the log say why
            except Exception:
                log.exception("%s could not be imported", shown)
            self._spool.let_go(upload)
