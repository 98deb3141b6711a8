"""Patience: the retry policy for a remote store.

A server that does not answer gets a bounded time in all, retries with growing pauses included. After that, requests
fail at once for some seconds, so that a loop over a thousand models does not wait a thousand times. Threading: any
thread.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from bentofs.store.errors import MissingStoreError, RemoteDeniedError, RemoteError
from bentofs.store.storage.objects import DeniedError, MissingBucketError, RefusedError, TransientError

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.2  # seconds; doubled each time
_LONGEST_PAUSE = 4.0
_RESPITE = 2.0  # seconds without requests to a server that gave no answer

_T = TypeVar("_T")


class Patience:
    """The patience of one mount with one server."""

    def __init__(self, location: str, seconds: float) -> None:
        """`location`: named in errors; `seconds`: for one request, retries included."""
        self._location = location
        self._seconds = seconds
        self._lock = threading.Lock()
        self._failed_at = float("-inf")
        self._failure = ""

    @property
    def attempt_seconds(self) -> float:
        """Return how long a single attempt may wait for an answer."""
        return max(1.0, self._seconds / 3)

    def call(self, subject: str, work: Callable[[], _T]) -> _T:
        """Call `work`, with retries, and return its result. MissingObjectError and ChangedObjectError are passed on.

        Raises:
            MissingStoreError: there is no bucket.
            RemoteDeniedError: the server denies access.
            RemoteError: the server cannot be reached, or fails permanently; the text names `subject`.
        """
        with self._lock:
            if time.monotonic() - self._failed_at < _RESPITE:
                raise RemoteError(f"{subject} cannot be reached: {self._failure}")
        deadline = time.monotonic() + self._seconds
        pause = _FIRST_PAUSE
        while True:
            try:
                answer = work()
            except DeniedError as error:
                raise RemoteDeniedError(f"access to {self._location} is denied: {error}") from None
            except MissingBucketError as error:
                raise MissingStoreError(f"{self._location}: {error}") from None
            except RefusedError as error:
                raise RemoteError(f"{subject} cannot be reached: {error}") from None
            except TransientError as error:
                if time.monotonic() + pause >= deadline:
                    with self._lock:
                        self._failed_at, self._failure = time.monotonic(), str(error)
                    raise RemoteError(f"{subject} cannot be reached: {error}") from None
                log.info("%s: %s; asked again in %.1f s", subject, error, pause)
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                with self._lock:
                    self._failed_at = float("-inf")
                return answer
