"""Intake: a store that is open for imports. Only here does the code choose between publishers.

Threading: functions without state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bentofs.store.integrity.baseline import Baseline
from bentofs.store.publishing.base import Publisher
from bentofs.store.publishing.local import LocalPublisher
from bentofs.store.staging.area import StagingArea, staging_area
from bentofs.store.staging.import_sizes import StagedSizes
from bentofs.store.staging.limits import Limits
from bentofs.store.staging.session import Session
from bentofs.store.storage.base import Storage
from bentofs.store.storage.local import LocalStorage
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import Importer
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.wiring.library import Library


@dataclass(frozen=True)
class Intake:
    """The objects that import into a library's store. Close the importer, then the record, then the session."""

    area: StagingArea
    session: Session
    receipts: ImportLog
    importer: Importer


def open_intake(
    library: Library,
    baseline: Baseline,
    *,
    staging: str | None = None,
    overwrite: bool = False,
    limits: Limits | None = None,
    stops: CancelTokens = (),
    measure: Callable[[str], StagedSizes] | None = None,
    has_sha256: bool = True,
) -> Intake:
    """Open the staging area and the record of imports of a store. `Storage.check_writable` comes first. Once one of
    `stops` is set, uploads are undone. `measure`, `has_sha256`: see `Importer`.

    Raises:
        StagingError: there is no place for a staging area.
    """
    storage = library.storage
    area = staging_area(storage.location, storage.folder, staging)
    session = area.open_session()
    receipts = ImportLog(area.receipts)
    importer = Importer(
        library.models,
        session,
        library.measurements,
        baseline,
        limits=limits,
        overwrite=overwrite,
        publisher=_publisher_of(storage, session, stops),
        measure=measure,
        has_sha256=has_sha256,
    )
    return Intake(area, session, receipts, importer)


def _publisher_of(storage: Storage, session: Session, stops: CancelTokens) -> Publisher:
    if isinstance(storage, LocalStorage):
        return LocalPublisher(session)
    # A daemon of a local store needs none of these modules.
    from bentofs.store.publishing.remote import RemotePublisher
    from bentofs.store.storage.remote import RemoteStorage

    if not isinstance(storage, RemoteStorage):
        raise TypeError(f"no publisher for {type(storage).__name__}")
    return RemotePublisher(storage, stops)
