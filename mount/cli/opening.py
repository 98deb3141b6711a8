"""Open the catalogue of a store, for the commands that look at it once."""

from __future__ import annotations

import click

from bentofs.mount.cli.options import log_to_stderr
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.storage.open import StoreSpec


def open_store(place: StoreSpec, *, follow_links: bool = False) -> ModelStore:
    """Open the catalogue of a store, for a command that looks at it once. Log to standard error.

    Raises:
        StoreError: there is no such store, or it cannot be reached.
    """
    log_to_stderr()
    storage = place.open(follow_links=follow_links)
    if storage.folder is not None:
        return ModelStore(storage)
    index = Index(store=storage.location)
    models = ModelStore(storage, infos=index)
    context = click.get_current_context()
    context.call_on_close(index.close)
    context.call_on_close(models.flush)  # called first
    return models
