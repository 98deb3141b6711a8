"""The composition root of the library: opens a store with all objects for an export or an import.

Threading: functions without state. They close everything that they open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.publishing.remote import check_writable, publisher_for
from bentofs.store.staging.area import staging_area
from bentofs.store.staging.model import Limits
from bentofs.store.storage.open import StoreSpec
from bentofs.store.storage.remote import RemoteStorage
from bentofs.store.transfer.exporter import Exporter
from bentofs.store.transfer.fetcher import Fetcher
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import Importer
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.fs import make_folders

_CLOSE_SECONDS = 5.0  # time limit for cancelled imports


@contextmanager
def opened_library(
    store: str | StoreSpec | None, compression: Compression | None = None
) -> Iterator[tuple[ModelStore, Archives]]:
    """Open a store's catalogue and its archives. They are the same as in a mount with the same compression.

    `compression`: None for the default of a mount.

    Raises:
        StoreError: there is no store, or it cannot be reached.
    """
    place = _place(store)
    storage = place.open()
    index = Index()
    archives = Archives(storage, index, compression or Compression.default(is_remote=place.is_remote))
    try:
        yield ModelStore(storage), archives
    finally:
        archives.close()
        index.close()


@contextmanager
def opened_exporter(
    store: str | StoreSpec | None, compression: Compression | None = None
) -> Iterator[tuple[ModelStore, Exporter]]:
    """Open a store to export from it. Arguments and errors are the same as for `opened_library`."""
    with (
        opened_library(store, compression) as (models, archives),
        closing(Exporter(models, archives)) as exporter,
    ):
        yield models, exporter


@contextmanager
def opened_fetcher(
    store: str | StoreSpec | None,
    *,
    overwrite: bool = False,
    staging: str | None = None,
    limits: Limits | None = None,
    stops: CancelTokens = (),
) -> Iterator[Fetcher]:
    """Open a store to import into it. A missing directory is created, as BentoML creates its own. Once one of `stops`
    is set, imports in progress end soon.

    Raises:
        StoreError: there is no such store, or it cannot be reached or written.
        StagingError: there is no place for a staging area.
    """
    place = _place(store)
    if not place.is_remote:
        make_folders(place.location)
    storage = place.open()
    if isinstance(storage, RemoteStorage):
        check_writable(storage)
    limits = limits or Limits()
    with ExitStack() as stack:
        area = staging_area(place.location, staging, is_remote=place.is_remote)
        session = area.open_session()
        stack.callback(session.close)
        index = Index()
        stack.callback(index.close)
        digests = Baseline()
        stack.callback(digests.close)
        receipts = ImportLog(area.receipts)
        stack.callback(receipts.close)
        importer = Importer(
            ModelStore(storage),
            session,
            Measurements(index),
            digests,
            limits=limits,
            overwrite=overwrite,
            publisher=publisher_for(storage, session, stops),
        )
        stack.callback(importer.close, _CLOSE_SECONDS)
        with closing(Fetcher(importer, session, receipts, limits.members, stops)) as fetcher:
            yield fetcher


def _place(store: str | StoreSpec | None) -> StoreSpec:
    return store if isinstance(store, StoreSpec) else StoreSpec.named(store)
