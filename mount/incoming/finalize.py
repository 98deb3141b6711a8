"""Finalizer: decides an upload once its program has finished it. It becomes a model of the store, or is refused with a
reason.

Knows no FUSE. Threading: any thread; one at a time for each upload. The spool's lock is not held meanwhile.
"""

from __future__ import annotations

import logging

from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.names import is_note, is_on_its_way
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.incoming.written_ranges import Skips
from bentofs.store.errors import BadModelError, DamagedArchiveError, StoreError, TooBigError, UnwrittenBytesError
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

# If a file of a directory comes before a `model.yaml`, these errors say that it is no model's archive. Any other error
# says that an archive could not be imported.
_NO_MODELS_ARCHIVE = (BadModelError, DamagedArchiveError, TooBigError)


def _means_no_archive(error: StoreError) -> bool:
    return isinstance(error, _NO_MODELS_ARCHIVE) and not isinstance(error, UnwrittenBytesError)


class Finalizer:
    """The decisions on the uploads of one spool."""

    def __init__(self, spool: Spool, delivery: Delivery) -> None:
        self._spool = spool
        self._delivery = delivery

    def settle(self, upload: Upload, path: str | None = None) -> None:
        """Import a complete upload; `path`: its current name, or the one that it is about to get.

        Raises:
            StoreError: why it was not imported.
        """
        with upload.deciding:
            if upload.gone is not None:
                raise upload.gone
            if upload.imported:
                return
            try:
                self._decide(upload, path or upload.path)
            except Exception:
                if not is_on_its_way(upload.path):
                    upload.mark_refused()
                raise
            if not upload.imported:
                upload.mark(False)

    def _decide(self, upload: Upload, path: str) -> None:
        if is_note(path):
            self._delivery.check_note(path, upload.uid, upload.path)
            return
        self._spool.judge(upload, path)  # a model.yaml may have come beside it
        upload.written.accept_skipped(
            Skips.ALL if is_on_its_way(path) else Skips.AS_RSYNC if upload.is_archive else Skips.BEHIND_BYTES
        )
        if not upload.is_archive:
            return
        self._delivery.report_whole(upload, is_final=not self._spool.is_on_its_way(upload.path))
        try:
            if upload.failure is not None:
                raise upload.failure
            prepared = upload.settle()
            if self._spool.is_on_its_way(path):
                self._delivery.prepare(prepared)  # done early: a slow rename would block all of incoming/
                return
            ready = upload.take()
        except StoreError as error:
            if self._spool.is_on_its_way(path):
                return  # reported when it gets its final name
            if upload.is_strict or upload.holds_model or not _means_no_archive(error):
                self._delivery.refuse(upload, path, error)
                raise
            log.info("%s stays as a file of its directory: %s", printable(path), error)
            self._delivery.withdraw(upload)
            return
        self._delivery.deliver(upload, path, ready)
        with self._spool.lock:
            self._spool.has_become_model(upload, path)
