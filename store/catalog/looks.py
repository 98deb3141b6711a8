"""Looks: the generations of models, from looks at all their files.

A model is looked at anew when its last look is older than a user of a mount may see. A look at many files takes long,
so a known model of many files is checked file by file, which is faster than a walk.

Threading: any thread. Two threads may look at the same model; the first result is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bentofs.store.catalog.names import REFRESH, Names
from bentofs.store.errors import SourceChangedError
from bentofs.store.model.model import MODEL_YAML, Model, ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Storage
from bentofs.store.storage.entries import Entries
from bentofs.store.util.budgeted_cache import BudgetedCache
from bentofs.store.util.memory_budget import MemoryBudget

_MANY = 1000  # files and directories in one model, from which on a look first checks the known ones
_HUGE = 20_000  # files and directories in one model; a look at so many takes about a quarter of a second;
_HUGE_SECONDS = 4.0  # seconds for which it may be cached
_KEPT = 8 << 20  # bytes of memory for the entries of all cached models: some 100,000


class Looks:
    """The looks at the models of one store."""

    def __init__(self, storage: Storage, names: Names, info: Callable[[Tag], ModelInfo], budget: MemoryBudget) -> None:
        """`info`: returns the parsed `model.yaml` of a model."""
        self._storage = storage
        self._names = names
        self._info = info
        # Models with the time of the last look, and the seconds that it took.
        self._models: BudgetedCache[Tag, tuple[Model, float, float]] = BudgetedCache(budget, _KEPT, least=_KEPT // 4)

    def drop(self, tag: Tag) -> None:
        """Drop what is known of a version that is gone."""
        self._models.drop(tag)

    def model(self, tag: Tag, max_age: float) -> Model:
        """Return the current generation of a model; `max_age`: see `ModelStore.model`.

        Raises:
            SourceChangedError: it was changed while it was looked at.
            NotFoundError, BadModelError, StoreUnreadableError: see `ModelStore.model`.
        """
        kept = self._models.get(tag)
        now = time.monotonic()
        is_young = (
            kept is not None
            and max_age
            and now - kept[1] < max(max_age, bearable_age(kept[2], is_huge=len(kept[0].entries) > _HUGE))
        )
        if kept is not None and is_young:
            found = self._names.version(tag)
            if found.info == kept[0].info and found.model_yaml == kept[0].entries[0].identity:
                return kept[0]
        look = time.monotonic_ns()
        if kept is not None and self._is_unchanged(tag, kept[0]):
            kept[0].look = max(kept[0].look, look)
            self._models.put(tag, (kept[0], now, time.monotonic() - now), kept[0].weight)
            return kept[0]
        info, entries, newest = self._look_at_model(tag)
        model = Model(info, entries, newest, look)
        took = time.monotonic() - now
        kept = self._models.get(tag)
        if kept is not None and kept[0].info == info and kept[0].entries == entries:
            model = kept[0]
            model.look = max(model.look, look)
        self._models.put(tag, (model, now, took), model.weight)
        return model

    def _is_unchanged(self, tag: Tag, known: Model) -> bool:
        """Tell whether a model of many files is as it was, if that can be told without a walk."""
        if len(known.entries) <= _MANY:
            return False
        found = self._names.version(tag)
        if self._info(tag) != known.info or found.model_yaml != known.entries[0].identity:
            return False
        return self._storage.is_unchanged(tag.path, known.entries)

    def _look_at_model(self, tag: Tag) -> tuple[ModelInfo, Entries, int]:
        """Return the parsed `model.yaml` and all files, seen in one state. Retry once if they changed in between."""
        for _ in range(2):
            info = self._info(tag)
            model_yaml = self._names.version(tag).model_yaml
            entries, newest = self._walk_steadily(tag)
            if entries and entries[0].path == MODEL_YAML and entries[0].identity == model_yaml:
                return info, entries, newest
            self._names.expire(tag.name)
        raise SourceChangedError(f"{tag} was changed while it was looked at")

    def _walk_steadily(self, tag: Tag) -> tuple[Entries, int]:
        """Walk all files. Retry once if a file vanished during the walk."""
        try:
            return self._storage.walk(tag.path)
        except SourceChangedError:
            return self._storage.walk(tag.path)


def bearable_age(took: float, *, is_huge: bool = False) -> float:
    """Return for how many seconds the result of a look is cached. `took`: seconds of the look.

    Slow looks may take at most a tenth of the time, within the delay promised to users of a mount, to which the kernel
    adds a second of its own. For a huge model, that limit would leave time for nothing but looks. So they may take a
    fifth of the time, and its users see changes later. A look at it that took still longer, on a busy machine, serves
    the requests that come just after its end: else each of one `ls -l` would look anew."""
    age = max(REFRESH, min(10 * took, 2 * REFRESH))
    return max(age, min(5 * took, _HUGE_SECONDS), took + REFRESH) if is_huge else age
