"""Retries in transfers, and the sentence that a user reads in the end: which errors are retried, and how often.

Threading: functions without state.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from bentofs.store.clients.error_classes import Failure, failure_of, reason_of
from bentofs.store.errors import (
    NoSpaceError,
    RemoteDeniedError,
    RemoteError,
    RemoteNotFoundError,
    SourceChangedError,
    StoreError,
)
from bentofs.store.location import Location
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped

log = logging.getLogger(__name__)

TRIES = 5
CONNECT_SECONDS = 10.0  # to make a connection
SILENCE_SECONDS = 30.0  # a server that neither takes nor gives a byte for so long counts as hung
_FIRST_PAUSE = 0.5  # seconds; doubled each time
_POLL_SECONDS = 0.2

Result = TypeVar("Result")


def retry(action: Callable[[], Result], location: Location, stops: CancelTokens = ()) -> Result:
    """Return the result of `action`. Retry it while its failure may pass, until one of `stops` is set.

    Raises:
        CancelledError: one was set while there was something to wait for.
        StoreError: a sentence about `location`.
    """
    for number in range(1, TRIES + 1):
        try:
            return action()
        except Exception as error:
            if number == TRIES or not may_pass(error):
                raise sentence_for(error, location) from error
            pause(number, error, location, stops)
    raise AssertionError("unreachable")


def pause(number: int, error: BaseException, location: Location, stops: CancelTokens = ()) -> None:
    """Wait before the next try. Raises CancelledError once one of `stops` is set."""
    log.info("%s: try %d failed, trying again: %s", location.shown, number, reason_of(error, location.secrets))
    end = time.monotonic() + _FIRST_PAUSE * 2 ** (number - 1) * random.uniform(0.8, 1.2)
    while (left := end - time.monotonic()) > 0:
        refuse_if_stopped(stops)
        time.sleep(min(left, _POLL_SECONDS))


@contextmanager
def told(location: Location) -> Iterator[None]:
    """Turn the errors that a server's library raises inside the context into a sentence about `location`."""
    try:
        yield
    except Exception as error:
        raise sentence_for(error, location) from error


def may_pass(error: BaseException) -> bool:
    """Tell whether the same request may succeed a little later."""
    return not isinstance(error, StoreError) and failure_of(error) is Failure.PASSING


def sentence_for(error: BaseException, location: Location) -> StoreError:
    """Return the error of a server's library as one of ours."""
    if isinstance(error, StoreError):
        return error
    reason, shown = reason_of(error, location.secrets), location.shown
    kind = failure_of(error)
    if kind is Failure.DENIED:
        return RemoteDeniedError(f"{shown}: the server does not allow it, or not with these credentials: {reason}")
    if kind is Failure.MISSING:
        return RemoteNotFoundError(f"{shown} is not there: {reason}")
    if kind is Failure.CHANGED:
        return SourceChangedError(f"{shown} was replaced while it was read: start again")
    if kind is Failure.FULL:
        return NoSpaceError(f"{shown} cannot be written: no space is left there: {reason}")
    if kind is Failure.PASSING:
        return RemoteError(f"{shown} could not be reached, or broke off again and again: {reason}")
    return RemoteError(f"{shown}: the server refuses: {reason}")
