"""Summaries: the models of a store as a list shows them, with sizes from the store's listing.

A look at a model takes several times as long. It is taken only once for each model with a manifest
(`store.storage.manifest`), since a manifest that cannot be used rules out its model.

Threading: any thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bentofs.store.catalog.ahead import one_ahead
from bentofs.store.catalog.known_infos import KnownInfos
from bentofs.store.catalog.names import Names
from bentofs.store.errors import NotFoundError, StoreError, is_failure
from bentofs.store.model.model import Summary
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Storage, Totals
from bentofs.store.storage.manifest import manifest_key

if TYPE_CHECKING:
    from bentofs.store.catalog.catalog import ModelStore


class Summaries:
    """The summaries of one store."""

    def __init__(self, models: ModelStore, names: Names, known: KnownInfos) -> None:
        self._models = models
        self._storage: Storage = models.storage
        self._names = names
        self._known = known
        self._failure: StoreError | None = None  # the first one that left out a model

    def all(self) -> Iterator[Summary]:
        """Yield the models that can be shown, sorted by tag. To be called once.

        Raises:
            StoreUnreadableError: at the end, if some models are missing because they could not be read now.
        """
        names = self._names.all()
        self._storage.prepare(names)
        for told, whole in one_ahead(names, self._fetched):
            for tag, totals in told.items():
                summary = self._of_model(tag, totals, is_looked_at=tag in whole)
                if summary is not None:
                    yield summary
        if self._failure is not None:
            raise self._failure

    def _fetched(self, names: Sequence[str]) -> tuple[dict[Tag, Totals], set[Tag]]:
        """Fetch what the summaries of some names need. Return their models, and those that must be looked at.

        The caller makes the summaries from that. Meanwhile the server answers for the next names: parsing takes a
        quarter of the time.
        """
        told: dict[Tag, Totals] = {}
        for name in names:
            try:
                versions = sorted(self._names.at(name).finished)
            except NotFoundError:
                continue
            except StoreError as error:
                self._leave_out(name, name, error)
                continue
            for tag in (Tag(name, version) for version in versions):
                try:
                    told[tag] = self._storage.totals(tag.path)
                except StoreError as error:
                    self._leave_out(tag.path, str(tag), error)
        usable = self._known.usable([totals.manifest for totals in told.values() if totals.manifest is not None])
        whole = {tag for tag, totals in told.items() if totals.manifest is not None and totals.manifest not in usable}
        self._models.prepare_infos(list(told), whole)
        return told, whole

    def _of_model(self, tag: Tag, totals: Totals, *, is_looked_at: bool) -> Summary | None:
        try:
            if not is_looked_at:
                return Summary(self._models.info(tag), totals.size, totals.file_count)
            begun_ns = time.time_ns()
            summary = Summary.of(self._models.model(tag))
            key = manifest_key(tag.name, tag.version)
            # If it was replaced meanwhile, nobody knows which of the two was read.
            if (
                totals.manifest is not None
                and self._storage.pins_content(key, totals.manifest, begun_ns)
                and self._storage.status(key).identity == totals.manifest
            ):
                self._known.keep_usable(totals.manifest)
            return summary
        except StoreError as error:
            self._leave_out(tag.path, str(tag), error)
            return None

    def _leave_out(self, path: str, what: str, error: StoreError) -> None:
        if isinstance(error, NotFoundError):  # deleted just now
            return
        self._models.warn(path, f"{error}; {what} is left out")
        if is_failure(error):
            self._failure = self._failure or error
