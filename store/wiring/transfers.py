"""Open a store to export from it, or to import into it.

Threading: functions without state. The contexts close everything that they open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from bentofs.store.archives.compression import Compression
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.staging.limits import Limits
from bentofs.store.storage.open import StoreSpec
from bentofs.store.transfer.exporter import Exporter
from bentofs.store.transfer.fetcher import Fetcher
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.fs import make_folders
from bentofs.store.util.memory_budget import MemoryBudget
from bentofs.store.wiring.intake import open_intake
from bentofs.store.wiring.library import opened_library, spec_of

_CLOSE_SECONDS = 5.0  # time limit for cancelled imports


@contextmanager
def opened_exporter(
    store: str | StoreSpec | None, compression: Compression | None = None
) -> Iterator[tuple[ModelStore, Exporter]]:
    """Open a store to export from it. Arguments and errors are the same as for `opened_library`."""
    with (
        opened_library(store, compression, budget=MemoryBudget(reads_once=True)) as library,
        closing(Exporter(library.models, library.archives)) as exporter,
    ):
        yield library.models, exporter


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
    spec = spec_of(store)
    if spec.folder is not None:
        make_folders(spec.folder)
    limits = limits or Limits()
    with ExitStack() as stack:
        library = stack.enter_context(opened_library(spec))
        library.storage.check_writable()
        baseline = stack.enter_context(closing(Baseline()))
        intake = open_intake(library, baseline, staging=staging, overwrite=overwrite, limits=limits, stops=stops)
        stack.callback(intake.session.close)
        stack.callback(intake.receipts.close)
        stack.callback(intake.importer.close, _CLOSE_SECONDS)
        with closing(Fetcher(intake.importer, intake.session, intake.receipts, limits.members, stops)) as fetcher:
            yield fetcher
