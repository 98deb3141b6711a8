"""EmptyUploads: uploads whose program closed them without a byte.

Some programs create a file, close it and write it afterwards, or try whether they may write it, as Info-ZIP's zip does.
So a file is refused only if it is still empty some moments later.

Threading: any thread. The spool's lock guards the list.
"""

from __future__ import annotations

import time

from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.upload import Upload
from bentofs.store.errors import NotAModelError

_SECONDS = 1.5  # that a program has to write its first byte after a close


class EmptyUploads:
    """The empty uploads of one spool that are undecided."""

    def __init__(self, spool: Spool, delivery: Delivery) -> None:
        self._spool = spool
        self._delivery = delivery
        self._waiting: list[tuple[float, Upload]] = []  # when to decide (monotonic), in order

    def take(self, upload: Upload) -> bool:
        """Take over the handle of an upload whose last writer closes it without a byte; under the spool's lock.

        Only release knows that: shells and dd close a copy of their descriptor before the first byte.

        Returns:
            False if bytes have come, or other programs have the upload open. The caller keeps the handle then.
        """
        if not self._stays_empty(upload):
            return False
        self._waiting.append((time.monotonic() + _SECONDS, upload))
        return True

    def decide(self) -> None:
        """Refuse the uploads that are still empty, and drop the handles that were taken over."""
        while True:
            with self._spool.lock:
                if not self._waiting or self._waiting[0][0] > time.monotonic():
                    return
                _, upload = self._waiting.pop(0)
                stays_empty = self._stays_empty(upload)
            if stays_empty:
                upload.mark_refused()
                self._delivery.refuse(upload, upload.path, NotAModelError("the file is empty: no model came"))
            with self._spool.lock:
                self._spool.let_go(upload)
            self._spool.end_gone()

    def _stays_empty(self, upload: Upload) -> bool:
        return (
            upload.handles == 1
            and upload.is_strict
            and upload.gone is None
            and not upload.imported
            and not upload.is_touched
            and upload.status().st_size == 0
            and not self._spool.is_on_its_way(upload.path)
        )
