"""Premeasure: measures imported models, so that their archives are ready at the first look.

A model is measured for `--compression auto` while it comes in (`store.staging.import_sizes`). A thread does the slower
measurements once the model is there: its bytes were just written, and are in the page cache.

Threading: `measure` may be called from any thread.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import is_compressed
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import StoreError
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.tag import Tag
from bentofs.store.staging.import_sizes import staged_sizes

log = logging.getLogger(__name__)


class Premeasure:
    """Measures the models that one mount imports."""

    def __init__(self, store: ModelStore, archives: Archives, formats: Sequence[Format], index: Index) -> None:
        self._store = store
        self._archives = archives
        self._formats = formats
        self._is_cheap = store.storage.has_page_cache  # else it would fetch every model again
        # For `store.transfer.importer.Importer`.
        self.staged = staged_sizes(index, archives, formats) if self._is_cheap else None
        # Formats that are not measured while a model is staged.
        self._others = [
            kind for kind in formats if is_compressed(kind, archives.compression) and not kind.needs_checksums
        ]
        self._imported: queue.SimpleQueue[Tag | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="premeasure", daemon=True).start()

    def measure(self, tag: Tag, *, is_staged: bool) -> None:
        """Measure a model soon, in the background, if the storage has a page cache. `is_staged`: True if `staged` has
        measured all it could."""
        if self._is_cheap and (self._others or not is_staged):
            self._imported.put(tag)

    def stop(self) -> None:
        """Stop after the current model. Closing the archives ends that one, too."""
        self._imported.put(None)

    def _run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)  # Linux: of this thread alone
        while (tag := self._imported.get()) is not None:
            try:
                self._archives.measure(self._store.model(tag), self._formats, lambda _bytes: None)
            except StoreError as error:  # just replaced, or the mount ends: the first look will measure it
                log.info("%s is not measured: %s", tag, error)
            except Exception:
                log.exception("%s could not be measured", tag)
