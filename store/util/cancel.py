"""CancelTokens: cancel a long operation."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bentofs.store.errors import CancelledError

CancelTokens = Sequence[threading.Event]  # set to cancel

_POLL_SECONDS = 0.2


def refuse_if_stopped(stops: CancelTokens) -> None:
    """Raise CancelledError if one of the tokens is set."""
    if any(stop.is_set() for stop in stops):
        raise CancelledError("it was cancelled")


def take(lock: threading.Lock | threading.Semaphore, stops: CancelTokens) -> None:
    """Acquire a lock. Raises CancelledError if one of `stops` is set meanwhile."""
    while not lock.acquire(timeout=_POLL_SECONDS):
        refuse_if_stopped(stops)


@contextmanager
def holding(lock: threading.Lock | threading.Semaphore, stops: CancelTokens) -> Iterator[None]:
    """Hold a lock for the time of the context. Raises CancelledError if one of `stops` is set meanwhile."""
    take(lock, stops)
    try:
        yield
    finally:
        lock.release()
