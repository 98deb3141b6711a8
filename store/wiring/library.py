"""Library: a store that is open for reading.

Threading: any thread. The context closes everything that it opens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.archives.index import Index
from bentofs.store.archives.later import Later
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.formats.write.registry import Format
from bentofs.store.integrity.baseline_recorder import Recorder
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Storage
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.memory_budget import MemoryBudget


class Library:
    """A store with its catalogue and its archives."""

    def __init__(
        self,
        storage: Storage,
        compression: Compression,
        *,
        formats: Sequence[Format] = (),
        budget: MemoryBudget | None = None,
        recorder: Recorder | None = None,
        later: Later | None = None,
        gone: Callable[[Tag], None] = lambda _tag: None,
    ) -> None:
        """`formats`: those that are asked for; `recorder`: told of the models that are read; `later`: told of those
        that were measured for one format only; both None for a command. `gone`: called with each version that has
        disappeared."""
        budget = budget or MemoryBudget()
        self._recorder = recorder
        self._gone = gone
        self.storage = storage
        self.index = Index(store=storage.location)
        self.measurements = Measurements(self.index, recorder.look_again if recorder else lambda: None, budget)
        self.archives = Archives(
            storage,
            self.index,
            compression,
            recorder.consider if recorder else lambda _model: None,
            formats=formats,
            measurements=self.measurements,
            later=later,
            budget=budget,
        )
        self.models = ModelStore(storage, self._forget, budget, self.index)

    def close(self) -> None:
        """Cancel compression, and close the index."""
        self.archives.close()
        self.models.flush()
        self.index.close()

    def _forget(self, tag: Tag) -> None:
        if self._recorder is not None:
            self._recorder.forget(tag)
        self.archives.forget(tag)
        self._gone(tag)


@contextmanager
def opened_library(
    store: str | StoreSpec | None,
    compression: Compression | None = None,
    *,
    formats: Sequence[Format] = (),
    follow_links: bool = False,
    budget: MemoryBudget | None = None,
) -> Iterator[Library]:
    """Open a store. Its archives are the same as in a mount with the same compression.

    `compression`: None for the default of a mount. `budget`: of all caches; None for the usual one.

    Raises:
        StoreError: there is no store, or it cannot be reached.
    """
    spec = spec_of(store)
    storage = spec.open(follow_links=follow_links)
    with closing(
        Library(
            storage,
            compression or Compression.default(has_page_cache=spec.has_page_cache),
            formats=formats,
            budget=budget,
        )
    ) as library:
        yield library


def spec_of(store: str | StoreSpec | None) -> StoreSpec:
    """Return the store that an argument of the API names; None for $BENTOFS_STORE, else BentoML's own."""
    return store if isinstance(store, StoreSpec) else StoreSpec.named(store)
