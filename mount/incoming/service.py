"""Incoming: the parts of one mount's `incoming/`, put together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from bentofs.mount.incoming.checksums import Checksums
from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.empty_uploads import EmptyUploads
from bentofs.mount.incoming.error_notes import ErrorNotes
from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.folder_delivery import FolderDelivery
from bentofs.mount.incoming.folders import Folders
from bentofs.mount.incoming.handles import UploadHandles
from bentofs.mount.incoming.housekeeping import Housekeeping
from bentofs.mount.incoming.imported import ImportedNames
from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.incoming.ownership import Ownership
from bentofs.mount.incoming.premeasure import Premeasure
from bentofs.mount.incoming.publishing import Publishing
from bentofs.mount.incoming.read_back import ReadBack
from bentofs.mount.incoming.receipts import Receipts
from bentofs.mount.incoming.recovery import Recovery
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.spool_names import UploadFactory
from bentofs.mount.incoming.staging_run import Slots, Stager
from bentofs.store.errors import StoreError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.baseline_recorder import Recorder
from bentofs.store.staging.limits import Limits
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.util.display import printable
from bentofs.store.util.memory_budget import MemoryBudget
from bentofs.store.wiring.intake import open_intake
from bentofs.store.wiring.library import Library

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 2.0  # time for running imports when the mount ends


@dataclass(frozen=True)
class IncomingSettings:
    """The settings of `incoming/`."""

    staging: str | None = None  # where models are staged; None for beside the store
    overwrite: bool = False
    settle_seconds: float | None = None  # import a directory that is quiet for so long; None for never
    mode: int = 0o755  # permissions of the directory
    limits: Limits = field(default_factory=Limits)


class Incoming:
    """The drop box of one mount, with its staging area and its record of imports."""

    def __init__(
        self,
        library: Library,
        baseline: Baseline,
        recorder: Recorder,
        premeasure: Premeasure,
        settings: IncomingSettings,
        budget: MemoryBudget,
        calling_user: Callable[[], int],
    ) -> None:
        """Clean up the staging area that dead mounts left, and take over their uploads. `calling_user`: returns the uid
        whose request this thread serves.

        Raises:
            StagingError: there is no place to stage models in.
        """
        self._ending = threading.Event()
        self._making_again = threading.Lock()
        self._is_missing = self._is_closing = False
        intake = open_intake(
            library,
            baseline,
            staging=settings.staging,
            overwrite=settings.overwrite,
            limits=settings.limits,
            stops=[self._ending],
            measure=premeasure.staged,
            has_sha256=not recorder.takes_imports,
        )
        area = intake.area
        self._session, self._log, self._importer = intake.session, intake.receipts, intake.importer
        dead = self._log.of_dead(area.is_alive)

        def imported(ready: StagedImport) -> None:
            premeasure.measure(ready.tag, is_staged=ready.is_measured)
            recorder.note_import(ready.tag)

        spooled = self._session.spool
        owners = Ownership()
        self._receipts = Receipts(self._log, self._session.name)
        reports = Reports(ErrorNotes(spooled, owners), self._receipts)
        names = ImportedNames(self._importer, self._log, ReadBack(spooled))
        self._sums = Checksums(spooled, self._log, owners)
        publishing = Publishing(self._importer, owners, imported)

        def stage(arriving: ArrivingFile, on_model: Callable[[], None]) -> StagedImport:
            return self._importer.stage(arriving, digest_later=True, on_model=on_model)

        stager = Stager(stage, Slots(budget))
        self._spool = Spool(spooled, UploadFactory(self._session.ranges, owners, self._receipts, stager))
        delivery = Delivery(publishing, self._sums, reports)
        finalizer = Finalizer(self._spool, delivery, reports, self._sums, names.read_back, self._importer.compare)
        empty = EmptyUploads(self._spool, finalizer)
        files = UploadHandles(self._spool, finalizer, empty, names, reports)
        folder_delivery = FolderDelivery(self._session, owners, publishing, self._receipts, reports)
        folders = Folders(self._spool, folder_delivery, reports)
        self.namespace = Namespace(
            self._spool, files, folders, finalizer, names, reports, calling_user, self._make_again, settings.mode
        )
        self._housekeeping = Housekeeping(
            self._spool, folders, reports, names.read_back, empty, settings.settle_seconds, self._make_again
        )
        self._housekeeping.start()
        of_this_boot = [receipt for session, receipt in dead if area.is_of_this_boot(session)]
        self._recovery = Recovery(self._spool, reports, finalizer)
        self._recovery.start(of_this_boot)
        for _, receipt in dead:  # not earlier: a kill in between would lose the uploads that recovery takes
            self._log.interrupt(receipt.id)

    @property
    def record(self) -> ImportLog:
        """Return the record of imports."""
        return self._log

    def tally(self) -> tuple[int, dict[str, int]]:
        """Return the number of running imports, and the numbers of ended ones by their state, since the mount began."""
        return self._log.tally()

    def _make_again(self) -> None:
        """Create the staging area again if somebody removed it."""
        with self._making_again:
            if self._is_closing:
                return
            area = self._session.area
            try:
                if not area.make_again(self._session):
                    return
                self._log.return_to_disk()
            except (StoreError, OSError) as error:
                if not self._is_missing:
                    log.warning("%s was removed and cannot be made again: %s", printable(area.path), error)
                self._is_missing = True
                return
            self._is_missing = False
            log.warning("%s was removed and is made again: uploads in it are lost", printable(area.path))

    def end_reports(self) -> None:
        """Report no upload as refused any more because its program has gone: this process ends. The next one finds what
        came of it, as after a crash."""
        self._receipts.end()

    def finish(self) -> None:
        """Wait for the imports that run though no program waits for them: quiet directories, and uploads of a dead
        mount."""
        self._housekeeping.stop()
        self._housekeeping.join()
        self._recovery.join()

    def close(self) -> None:
        """Stop everything that runs. Incomplete uploads are kept for the next mount."""
        with self._making_again:
            self._is_closing = True
        self._housekeeping.stop()
        self._receipts.end()
        self._spool.close()
        is_quiet = self._importer.close(_CLOSE_SECONDS)
        if not is_quiet:
            self._ending.set()
            is_quiet = self._importer.close(_CLOSE_SECONDS)
        self._sums.close(_CLOSE_SECONDS)
        self._log.close()
        if is_quiet:
            self._session.close()
        else:  # its lock ends with the process, and the next mount cleans up
            log.info("ended while a model was being imported")


def open_incoming(
    library: Library,
    baseline: Baseline,
    recorder: Recorder,
    premeasure: Premeasure,
    settings: IncomingSettings | None,
    budget: MemoryBudget,
    calling_user: Callable[[], int],
) -> Incoming | None:
    """Open the drop box. Return None if the settings want none. If the store does not allow one, log a warning and
    return None.

    Raises:
        StagingError: there is no place to stage models in.
    """
    if settings is None:
        return None
    try:
        library.storage.check_writable()
    except StoreError as error:
        log.warning("no incoming/ in this mount: %s", error)
        return None
    return Incoming(library, baseline, recorder, premeasure, settings, budget, calling_user)
