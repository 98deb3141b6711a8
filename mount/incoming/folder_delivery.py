"""FolderDelivery: makes a directory that was copied in a model of the store. The directory is moved out of the spool
first, so that nobody changes it meanwhile. If it is refused, it is put back.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress

from bentofs.mount.incoming.ownership import Ownership
from bentofs.mount.incoming.publishing import Publishing
from bentofs.mount.incoming.receipts import Receipts
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool_names import SpoolNames
from bentofs.store.errors import StoreError
from bentofs.store.staging.session import Session


class FolderDelivery:
    """The deliveries of directories of one `incoming/`."""

    def __init__(
        self, session: Session, owners: Ownership, publishing: Publishing, receipts: Receipts, reports: Reports
    ) -> None:
        self._session = session
        self._owners = owners
        self._publishing = publishing
        self._receipts = receipts
        self._reports = reports

    def take(self, _names: SpoolNames, path: str) -> str:
        """Take a directory out of the spool, to stage it in its new place. Return that place, which has no name in
        `incoming/`."""
        inode = os.lstat(self._at(path)).st_ino
        taken = os.path.join(self._session.new_importing_folder(inode), path)
        os.makedirs(os.path.dirname(taken), 0o700, exist_ok=True)
        os.rename(self._at(path), taken)
        return taken

    def deliver(self, path: str, taken: str, uid: int) -> None:
        """Make a taken directory a model of the store, or put it back.

        Raises:
            StoreError: why it was not imported.
        """
        try:
            ready = self._publishing.importer.stage_folder(taken)
            outcome = self._publishing.publish(ready, uid)
        except BaseException as error:
            if os.path.lexists(taken):
                self._put_back(taken, path, uid)
            if isinstance(error, StoreError):
                self._reports.refuse_path(path, uid, error)
            raise
        receipt = self._receipts.begin(path, uid)
        _remove_around(taken, path)
        self._receipts.finish(receipt, outcome, ready)
        self._reports.notes.remove(path)
        self._publishing.announce(path, outcome, ready, self._receipts.request(receipt))

    def _put_back(self, taken: str, path: str, uid: int) -> None:
        if uid != self._owners.user == 0:  # staging made root the owner
            for folder, _, files in os.walk(taken):
                for name in ("", *files):
                    os.chown(os.path.join(folder, name), uid, -1, follow_symlinks=False)
        free = path
        for number in itertools.count(2):
            if not os.path.lexists(self._at(free)):
                break
            free = f"{path}-{number}"
        os.makedirs(os.path.dirname(self._at(free)), exist_ok=True)
        os.rename(taken, self._at(free))
        _remove_around(taken, path)

    def _at(self, path: str) -> str:
        return f"{self._session.spool}/{path}"


def _remove_around(taken: str, path: str) -> None:
    """Remove the parent directories of a directory that was taken from a path."""
    for _ in path.split("/"):
        taken = os.path.dirname(taken)
        with suppress(OSError):  # they are empty, and are removed when the mount ends
            os.rmdir(taken)
