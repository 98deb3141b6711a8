"""Later: measures an archive in the background after the first `stat` of the same model in another format.

A program that copies one format must not wait for the other's sizes. It would not use them.

Threading: any thread may call anything. One thread measures, while nobody reads. A `stat` that needs the model it
measures waits for it, and it does not pause then.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from bentofs.store.errors import CancelledError, StoreError
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag

log = logging.getLogger(__name__)

_KEPT = 4 << 20  # bytes of all models that wait
_QUIET_SECONDS = 0.3  # seconds without a request before it begins or goes on
_SAMPLE_SECONDS = 0.05


class Measuring(Protocol):
    """The archives of a store (`store.archives.archives.Archives`)."""

    def measure_rest(self, model: Model, pace: Callable[[], None]) -> None:
        """Measure what a later `stat` of the model may need. Call `pace` often."""

    def is_awaited(self, model: Model) -> bool:
        """Tell whether another thread waits for what `measure_rest` measures."""


class Later:
    """The models that wait to be measured, and the thread that does it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two fields below
        self._waiting: OrderedDict[Tag, Model] = OrderedDict()
        self._size = 0  # bytes
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, model: Model) -> None:
        """Measure the rest of a model when nobody reads. If too many wait, the oldest is left to its first `stat`."""
        with self._lock:
            self._drop(model.tag)
            self._waiting[model.tag] = model
            self._size += model.weight
            while self._size > _KEPT and len(self._waiting) > 1:
                self._drop(next(iter(self._waiting)))
        self._wake.set()

    def forget(self, tag: Tag) -> None:
        """Forget a model that is no longer in the store."""
        with self._lock:
            self._drop(tag)

    def start(self, archives: Measuring, is_busy: Callable[[], bool]) -> None:
        """Start the thread. `is_busy`: tells whether a request is being served."""
        self._thread = threading.Thread(target=self._run, args=(archives, is_busy), name="measure-later", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, within the time that a step takes."""
        self._stopping.set()
        self._wake.set()

    def _run(self, archives: Measuring, is_busy: Callable[[], bool]) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while (model := self._next(is_busy)) is not None:
                try:
                    archives.measure_rest(model, functools.partial(self._pace, archives, model, is_busy))
                except CancelledError:
                    return
                except StoreError as error:  # changed or removed: its next `stat` measures it
                    log.info("%s is not measured in the background: %s", model.tag, error)
                except Exception:
                    log.exception("%s could not be measured in the background", model.tag)
            if self._stopping.is_set():
                return

    def _next(self, is_busy: Callable[[], bool]) -> Model | None:
        """Return the next model once nobody has read for a moment; None if there is none, or the thread must stop."""
        if self._waiting:
            self._await_quiet(is_busy, lambda: False)
        with self._lock:
            if self._stopping.is_set() or not self._waiting:
                return None
            tag, model = next(iter(self._waiting.items()))
            self._drop(tag)
            return model

    def _pace(self, archives: Measuring, model: Model, is_busy: Callable[[], bool]) -> None:
        """Pause while others read, unless one of them waits for this model."""
        if is_busy():
            self._await_quiet(is_busy, lambda: archives.is_awaited(model))
        if self._stopping.is_set():
            raise CancelledError("bentofs ends")

    def _await_quiet(self, is_busy: Callable[[], bool], is_awaited: Callable[[], bool]) -> None:
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < _QUIET_SECONDS and not is_awaited():
            if self._stopping.wait(_SAMPLE_SECONDS):
                return
            if is_busy():
                quiet_since = time.monotonic()

    def _drop(self, tag: Tag) -> None:
        with suppress(KeyError):
            self._size -= self._waiting.pop(tag).weight
