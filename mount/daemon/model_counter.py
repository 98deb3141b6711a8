"""Count a store's models in the background: a large or remote store must not delay who asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bentofs.store.errors import StoreError
from bentofs.store.util.threads import started

_PATIENCE = 0.5  # seconds that the caller waits for a new count
_SHARE = 20  # counting takes at most a twentieth of the time


class ModelCounter:
    """The number of models, counted again from time to time. Threading: any thread."""

    def __init__(self, count: Callable[[], int], period: float) -> None:
        """`period`: the least seconds between two counts."""
        self._count = count
        self._period = period
        self._lock = threading.Lock()
        self._due = 0.0  # when to count again (monotonic)
        self._counted = threading.Event()
        self._number: int | None = None

    def number(self) -> int | None:
        """Return the last count. None if there is none yet."""
        with self._lock:
            if time.monotonic() >= self._due:
                self._due = float("inf")
                self._counted.clear()
                if not started(threading.Thread(target=self._run, name="model-counter", daemon=True)):
                    self._due = 0.0
                    self._counted.set()
        self._counted.wait(_PATIENCE)
        return self._number

    def _run(self) -> None:
        begun = time.monotonic()
        try:
            self._number = self._count()
        except (StoreError, OSError):  # the store cannot be read now
            self._number = None
        finally:
            took = time.monotonic() - begun
            self._due = time.monotonic() + max(self._period, _SHARE * took)
            self._counted.set()
