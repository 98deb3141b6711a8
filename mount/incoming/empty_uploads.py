"""EmptyUploads: uploads whose program closed them without a byte.

Some programs create a file, close it and write it afterwards, or try whether they may write it, as Info-ZIP's zip does.
So a file is refused only if it is still empty some moments later.

Threading: any thread. The spool's lock guards the list.
"""

from __future__ import annotations

import time

from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.spool_names import SpoolNames
from bentofs.mount.incoming.upload import Upload
from bentofs.store.errors import NotAModelError

_SECONDS = 1.5  # that a program has to write its first byte after a close


class EmptyUploads:
    """The empty uploads of one spool that are undecided."""

    def __init__(self, spool: Spool, finalizer: Finalizer) -> None:
        self._spool = spool
        self._finalizer = finalizer
        self._waiting: list[tuple[float, Upload]] = []  # when to decide (monotonic), in order

    def take(self, names: SpoolNames, upload: Upload) -> bool:
        """Take over the handle of an upload whose last writer closes it without a byte.

        Only release knows that: shells and dd close a copy of their descriptor before the first byte.

        Returns:
            False if bytes have come, or other programs have the upload open. The caller keeps the handle then.
        """
        if not self._stays_empty(names, upload):
            return False
        self._waiting.append((time.monotonic() + _SECONDS, upload))
        return True

    def decide(self) -> None:
        """Refuse the uploads that are still empty, and drop the handles that were taken over."""
        while True:
            with self._spool.locked() as names:
                if not self._waiting or self._waiting[0][0] > time.monotonic():
                    return
                _, upload = self._waiting.pop(0)
                stays_empty = self._stays_empty(names, upload)
            if stays_empty:
                self._finalizer.refuse(upload, NotAModelError("the file is empty: no model came; copy it again"))
            self._spool.let_go(upload)

    def _stays_empty(self, names: SpoolNames, upload: Upload) -> bool:
        return (
            names.handles(upload) == 1
            and upload.kind.is_strict
            and upload.lost is None
            and not upload.is_imported
            and not upload.is_touched
            and upload.file.size == 0
            and not self._spool.is_on_its_way(upload.path)
        )
