"""The pruner: a thread that removes what a mount's index and baseline keep of models that are gone, and old logs.

It begins when no model has gone for a minute, and once a day, for models that were replaced. It works at the lowest
priority. `bentofs clean` does the same at once.

Threading: `note` may be called from any thread; all else happens in the pruner's own thread.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress

from bentofs.mount.daemon.running import log_path
from bentofs.mount.kernel.mount_table import our_mounts
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import StoreError
from bentofs.store.model.tag import Tag
from bentofs.store.upkeep.clean import clean_logs, prune_store

log = logging.getLogger(__name__)

_DAY_SECONDS = 86400.0
_PAUSE_SECONDS = 0.002  # after each model that is looked at, for the mount's readers
_QUIET_SECONDS = 60.0  # without a model that goes, before pruning begins: models often go one after another


class Pruner:
    """The pruner of one mount."""

    def __init__(self, folder: str | None, quiet_seconds: float = _QUIET_SECONDS) -> None:
        """`folder`: of a local store; None for a remote one, whose models cannot be looked at for nothing."""
        self._folder = folder
        self._quiet_seconds = quiet_seconds
        self._root = _inode_of(folder)
        self._lock = threading.Lock()
        self._gone: set[str] = set()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, models: ModelStore) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, args=(models,), name="pruner", daemon=True)
        self._thread.start()

    def note(self, tag: Tag) -> None:
        """Note that a model has gone."""
        with self._lock:
            self._gone.add(str(tag))
        self._wake.set()

    def stop(self) -> None:
        """Stop the thread. Wait a moment for it: a step of a pruning is short."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None and self._thread.is_alive():  # it may be starting just now
            self._thread.join(1.0)

    def _run(self, models: ModelStore) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        with suppress(StoreError, OSError):  # no home, no logs
            for _ in clean_logs([log_path(mount.path) for mount in our_mounts()]):
                pass
        while self._folder is not None and self._is_due():
            with self._lock:
                gone, self._gone = self._gone, set()
            if _inode_of(self._folder) != self._root:
                continue  # its disk is not mounted: nobody knows which models are gone
            try:
                rows = prune_store(self._folder, models, gone, self._gives_way)
                log.info("%d rows of deleted models were pruned", rows)
            except (StoreError, OSError) as error:  # the next model that goes brings the next try
                log.info("the records of deleted models were not pruned: %s", error)

    def _gives_way(self) -> bool:
        """Pause. Return True if the mount ends."""
        return self._stopping.wait(_PAUSE_SECONDS)

    def _is_due(self) -> bool:
        """Wait until models have gone, and no more go; at most a day. Return False if the mount ends."""
        self._wake.wait(_DAY_SECONDS)
        while not self._stopping.is_set():
            self._wake.clear()
            if not self._wake.wait(self._quiet_seconds):
                return True
        return False


def _inode_of(folder: str | None) -> int | None:
    with suppress(OSError):
        return os.stat(folder).st_ino if folder is not None else None
    return None
