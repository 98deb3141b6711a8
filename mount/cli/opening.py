"""Open the catalogue of a store, for the commands that look at it once."""

from __future__ import annotations

import gc
from dataclasses import replace

import click

from bentofs.mount.cli.options import log_to_stderr
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.storage.open import StoreSpec

_TTL = 600.0  # seconds for which a command believes a listing
_ALLOCATIONS = 100_000  # objects made minus objects freed between two garbage collections; Python's default is 700


def open_store(place: StoreSpec, *, follow_links: bool = False) -> ModelStore:
    """Open the catalogue of a store, for a command that looks at it once. Log to standard error.

    Raises:
        StoreError: there is no such store, or it cannot be reached.
    """
    log_to_stderr()
    _collect_seldom()
    # One look shows one state of the store, however long it takes: a second listing would only double the time.
    storage = replace(place, ttl=max(place.ttl, _TTL)).open(follow_links=follow_links)
    if storage.folder is not None:
        return ModelStore(storage)
    index = Index(store=storage.location)
    models = ModelStore(storage, infos=index)
    context = click.get_current_context()
    context.call_on_close(index.close)
    context.call_on_close(models.flush)  # called first
    return models


def _collect_seldom() -> None:
    """Make Python collect cyclic garbage less often. There is hardly any, and a third of the time to list a large store
    in a bucket went into looking for it."""
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)
