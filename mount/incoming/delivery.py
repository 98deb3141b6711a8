"""Delivery: makes a checked upload a model of the store.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Callable

from bentofs.mount.incoming.checksums import Checksums
from bentofs.mount.incoming.publishing import Publishing
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.incoming.upload_facts import Became


class Delivery:
    """The deliveries of one `incoming/`."""

    def __init__(self, publishing: Publishing, sums: Checksums, reports: Reports) -> None:
        self._publishing = publishing
        self._sums = sums
        self._reports = reports

    def deliver(self, upload: Upload, path: str, check: Callable[[], None]) -> int:
        """Make a checked upload a model of the store; `path`: the name under which it was copied in. Return the number
        of its receipt. `check`: called once no program can change the bytes any more; may raise.

        Raises:
            StoreError: why it was not imported. The staged model is discarded.
        """
        ready = upload.take()
        look = upload.file.status()
        try:
            check()
            self._sums.check(path, ready, upload.uid)
            outcome = self._publishing.publish(ready, upload.uid, may_replace=upload.may_replace)
        except BaseException:
            ready.discard()
            raise
        receipt = upload.receipt.number(path, upload.uid)
        if ready.digest is not None:
            self._sums.await_digest(receipt, ready.digest)
        request = upload.receipt.request
        upload.receipt.finish(path, look, outcome, ready)
        upload.note_model(Became(str(ready.tag), outcome, ready.staged.left_out))
        upload.mark_imported()
        self._reports.notes.remove(path)
        self._publishing.announce(path, outcome, ready, request)
        return receipt
