"""Reports: tells users about their uploads: in the record of imports, in the log, and in a note beside a refused file.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

from contextlib import suppress

from bentofs.mount.incoming.error_notes import ErrorNotes
from bentofs.mount.incoming.names import final_path
from bentofs.mount.incoming.receipts import Receipts
from bentofs.mount.incoming.upload import Upload
from bentofs.store.errors import StoreError


class Reports:
    """The reports on one `incoming/`."""

    def __init__(self, notes: ErrorNotes, receipts: Receipts) -> None:
        self.notes = notes
        self._receipts = receipts

    def begin(self, upload: Upload) -> None:
        """Report that the first bytes of an upload come. The note of an earlier upload of its name is no longer
        true."""
        self.notes.remove(upload.path)
        upload.receipt.begin(upload.path, upload.uid)

    def progress(self, upload: Upload) -> None:
        """Record how far an upload has come."""
        with suppress(OSError):  # just closed
            upload.receipt.progress(upload.file.size)

    def whole(self, upload: Upload, *, is_final: bool) -> None:
        """Record that an upload is whole. `is_final`: it has its final name."""
        upload.receipt.whole(upload.file.size, upload.path if is_final else None)

    def refuse(self, upload: Upload, path: str, error: StoreError) -> None:
        """Report why an upload was not imported; `path`: the name under which it was copied in. Report the same error
        only once."""
        if not upload.receipt.is_news(error):
            return
        if not upload.receipt.is_running:
            self.begin(upload)
        self.notes.write(final_path(path), error, upload.uid, upload.receipt.request)
        upload.receipt.refuse(path, upload.file.size, error)

    def refuse_path(self, path: str, uid: int, error: StoreError) -> None:
        """Report why a path was not imported: a directory, or bytes that came after their upload had become a model."""
        number = self._receipts.begin(path, uid)
        self.notes.write(path, error, uid, self._receipts.request(number))
        self._receipts.refuse(number, error)
