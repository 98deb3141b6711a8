"""Finalizer: decides an upload once its program has finished it. It becomes a model of the store, or is refused with a
reason, or stays as a file.

Knows no FUSE. Threading: any thread; one at a time for each upload (`Upload.deciding`). The spool's lock is not held
meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from bentofs.mount.incoming.checksums import Checksums
from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.names import is_note, is_on_its_way
from bentofs.mount.incoming.read_back import ReadBack
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.incoming.written_ranges import Skips
from bentofs.store.errors import (
    BadModelError,
    CancelledError,
    DamagedArchiveError,
    StoreError,
    TooBigError,
    UnwrittenBytesError,
)
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

# If a file of a directory comes before a `model.yaml`, these errors say that it is no model's archive. Any other error
# says that an archive could not be imported.
_NO_MODELS_ARCHIVE = (BadModelError, DamagedArchiveError, TooBigError)


class Finalizer:
    """The decisions on the uploads of one spool."""

    def __init__(
        self,
        spool: Spool,
        delivery: Delivery,
        reports: Reports,
        sums: Checksums,
        read_back: ReadBack,
        compare: Callable[[StagedImport], None],
    ) -> None:
        """`compare`: compares a staged model with the store's early (`Importer.compare`)."""
        self._spool = spool
        self._delivery = delivery
        self._reports = reports
        self._sums = sums
        self._read_back = read_back
        self._compare = compare

    def finalize(self, upload: Upload, path: str | None = None, check: Callable[[], None] = lambda: None) -> None:
        """Import a complete upload; `path`: its current name, or the one that it is about to get. `check`: called
        before the model appears, once no program can change the bytes any more; may raise.

        Raises:
            StoreError: why it was not imported.
        """
        with upload.deciding():
            if upload.is_imported:
                return
            try:
                self._decide(upload, path or upload.path, check)
            except Exception as error:
                upload.refuse(error, is_shown=not is_on_its_way(upload.path))
                raise

    def refuse(self, upload: Upload, error: StoreError) -> None:
        """Refuse an upload for a reason that its bytes do not tell. Do nothing if it lost its name."""
        with suppress(CancelledError), upload.deciding():
            if not upload.is_imported:
                upload.refuse(error, is_shown=True)
            self._reports.refuse(upload, upload.path, error)

    def _decide(self, upload: Upload, path: str, check: Callable[[], None]) -> None:
        if is_note(path):
            self._check_note(upload, path)
            upload.keep()
            return
        self._spool.judge(upload, path)  # a model.yaml may have come beside it
        upload.file.accept_skipped(
            Skips.ALL if is_on_its_way(path) else Skips.AS_RSYNC if upload.kind.is_archive else Skips.BEHIND_BYTES
        )
        if not upload.kind.is_archive:
            upload.keep()
            return
        self._reports.whole(upload, is_final=not self._spool.is_on_its_way(upload.path))
        try:
            self._import(upload, path, check)
        except StoreError as error:
            if self._spool.is_on_its_way(path):  # it is told when the upload gets its final name
                upload.mark.set(False)
                return
            if upload.kind.is_strict or upload.holds_model or not _means_no_archive(error):
                self._reports.refuse(upload, path, error)
                raise
            log.info("%s stays as a file of its directory: %s", printable(path), error)
            upload.withdraw()
            upload.keep()

    def _import(self, upload: Upload, path: str, check: Callable[[], None]) -> None:
        """Import an archive. If its name is not final, only prepare that."""
        if upload.file.failure is not None:
            raise upload.file.failure
        ready = upload.staged()
        if self._spool.is_on_its_way(path):
            self._compare(ready)  # done early: a slow rename would block all of incoming/
            upload.mark.set(False)
            return
        receipt = self._delivery.deliver(upload, path, check)
        self._read_back.keep(receipt, upload.file.duplicate())
        with self._spool.locked() as names:
            names.has_become_model(upload, path)

    def _check_note(self, upload: Upload, path: str) -> None:
        """Compare a copied file of checksums with earlier imports.

        Raises:
            DamagedArchiveError: an imported file has another sum.
        """
        self._reports.notes.remove(path)
        try:
            self._sums.check_imported(path, upload.uid, upload.path)
        except DamagedArchiveError as error:
            self._reports.notes.write(path, error, upload.uid)
            raise


def _means_no_archive(error: StoreError) -> bool:
    return isinstance(error, _NO_MODELS_ARCHIVE) and not isinstance(error, UnwrittenBytesError)
