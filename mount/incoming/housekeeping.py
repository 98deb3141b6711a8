"""Housekeeping of `incoming/`: one thread that reports progress. If the user asked for it, it also imports directories
that have been quiet for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from bentofs.mount.incoming.empty_uploads import EmptyUploads
from bentofs.mount.incoming.folders import Folders
from bentofs.mount.incoming.names import is_on_its_way
from bentofs.mount.incoming.read_back import ReadBack
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.stale_notes import remove_stale_notes
from bentofs.store.errors import StoreError
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds
_NOTES_INTERVAL = 600.0  # seconds between two looks for stale notes


class Housekeeping:
    """The thread of one drop box."""

    def __init__(
        self,
        spool: Spool,
        folders: Folders,
        reports: Reports,
        read_back: ReadBack,
        empty: EmptyUploads,
        settle_seconds: float | None,
        make_again: Callable[[], None],
    ) -> None:
        """`settle_seconds`: how long a directory must be quiet before it is imported; None for never. `make_again`:
        creates the parts of the staging area that somebody removed."""
        self._make_again = make_again
        self._spool = spool
        self._folders = folders
        self._reports = reports
        self._read_back = read_back
        self._empty = empty
        self._settle_seconds = settle_seconds
        self._refused: dict[str, int] = {}  # directory -> its newest change when it was refused (ns)
        self._notes_at = 0.0  # when to look for stale notes (monotonic)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Do not wait for an import that it runs."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until the thread has ended, and so the import that it runs."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL):
            try:
                self._make_again()
                for upload in self._spool.running():
                    self._reports.progress(upload)
                self._empty.decide()
                self._read_back.tidy()
                self._remove_stale_notes()
                if self._settle_seconds is not None:
                    self._import_quiet_folders(self._settle_seconds)
            except Exception:  # the thread must go on
                log.exception("housekeeping failed")

    def _remove_stale_notes(self) -> None:
        if time.monotonic() < self._notes_at:
            return
        self._notes_at = time.monotonic() + _NOTES_INTERVAL
        for path in remove_stale_notes(self._spool.root):
            log.info("%s is removed: its file has gone", printable(path))

    def _import_quiet_folders(self, seconds: float) -> None:
        for folder in list(self._folders.models("")):
            if is_on_its_way(folder) or self._folders.is_busy(folder):
                continue
            newest = self._folders.newest_change(folder)
            if time.time_ns() - newest < seconds * 1e9 or self._refused.get(folder) == newest:
                continue
            try:
                self._folders.import_model(folder)
                self._refused.pop(folder, None)
            except (StoreError, OSError) as error:
                log.info("%s is not imported: %s", printable(folder), error)
                self._refused[folder] = self._folders.newest_change(folder)  # the attempt changes times, too
