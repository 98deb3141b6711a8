"""Backend: the objects behind one tree, whoever shows it: a mount (`mount.daemon.serve`) or a server
(`mount.daemon.http_server`)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bentofs.mount.daemon.code_pages import unmap_code
from bentofs.mount.daemon.logs import RecentLog
from bentofs.mount.daemon.malloc import Trimmer
from bentofs.mount.daemon.pruner import Pruner
from bentofs.mount.daemon.status import MountStatus
from bentofs.mount.incoming.premeasure import Premeasure
from bentofs.mount.incoming.service import IncomingSettings, open_incoming
from bentofs.mount.view.readme import Reader
from bentofs.mount.view.traffic import Traffic
from bentofs.mount.view.tree import Tree
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.later import Later
from bentofs.store.formats.write.registry import Format
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.baseline_recorder import Recorder
from bentofs.store.storage.base import Storage
from bentofs.store.storage.open import StoreSpec
from bentofs.store.util.memory_budget import MemoryBudget
from bentofs.store.wiring.library import Library

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TreeSettings:
    """The settings of a tree, whoever shows it."""

    store: StoreSpec
    formats: Sequence[Format]
    follow_links: bool = False
    by_label: bool = False
    incoming: IncomingSettings | None = None  # None for a tree without incoming/
    compression: Compression = Compression.AUTO


class Backend:
    """A store that is open to be shown as a tree. `stop` and `close` end everything that runs."""

    def __init__(
        self,
        storage: Storage,
        settings: TreeSettings,
        recent: RecentLog,
        described: Mapping[str, Any],
        budget: MemoryBudget,
        trimmer: Trimmer,
        *,
        calling_user: Callable[[], int],
        features: Callable[[], Sequence[str]] = lambda: (),
        nodes: Callable[[], int | None] = lambda: None,
        reader: Reader = Reader.MOUNT,
    ) -> None:
        """`described`: the settings, for the status; `budget`, `trimmer`: of the process's memory; `calling_user`,
        `features`, `nodes`: see `Engine`; `reader`: who reads README.txt.

        Raises:
            StagingError: there is no place for `incoming/`.
        """
        self._budget = budget
        self._baseline = Baseline()
        self._recorder = Recorder(storage, self._baseline)
        self._later = Later()
        self._pruner = Pruner(storage.folder)
        self._trimmer = trimmer
        self.library = Library(
            storage,
            settings.compression,
            formats=settings.formats,
            budget=budget,
            recorder=self._recorder,
            later=self._later if storage.has_page_cache else None,
            gone=self._pruner.note,
        )
        store, archives = self.library.models, self.library.archives
        self._premeasure = Premeasure(store, archives, settings.formats, self.library.index)
        self.incoming = open_incoming(
            self.library, self._baseline, self._recorder, self._premeasure, settings.incoming, budget, calling_user
        )
        self.traffic = Traffic()
        tally = self.incoming.tally if self.incoming is not None else None
        self.live = MountStatus(
            described, store, features, nodes, self.traffic, tally, budget, self.library.index, recent
        ).files()
        self.tree = Tree(
            store,
            archives,
            settings.formats,
            has_incoming=self.incoming is not None,
            live=self.live,
            baseline=self._baseline,
            by_label=settings.by_label,
            reader=reader,
        )

    def start(self, is_busy: Callable[[], bool]) -> None:
        """Start the work in the background. `is_busy`: tells whether a request is being served."""

        def must_wait() -> bool:
            return self._budget.is_short or is_busy()

        find = functools.partial(self.library.models.model, max_age=0)
        self._recorder.start(self.library.archives.is_measured, must_wait, find, self.library.measurements.known)
        self._later.start(self.library.archives, must_wait)
        self._trimmer.start()
        self._pruner.start(self.library.models)
        unmap_code()  # most of it served to start

    def stop(self) -> None:
        """Stop the work in the background. Threads that wait for a measurement end."""
        self._trimmer.stop()
        self._recorder.stop()
        self._pruner.stop()
        self._premeasure.stop()
        self._later.stop()
        self.library.archives.close()

    def close(self) -> None:
        """Close everything, after `stop`. Incomplete uploads are kept for the next process."""
        if self.incoming is not None:
            self.incoming.close()
        self.library.close()
        self._baseline.close()
