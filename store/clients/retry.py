"""Retries: the one rule by which requests to servers are repeated, and end in an error of `store.errors`.

A driver calls `Retries.call` for each request. The library's exception decides if a retry may help
(`store.clients.error_classes`). The attempts are bounded in number, in time, or both.

Threading: any thread. All requests to a server that share a `Retries` fail at once for some seconds (`respite`) after
one of them got no answer: a loop over a thousand models must not wait a thousand times.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bentofs.store.clients.error_classes import error_for, may_pass, reason_of
from bentofs.store.errors import StoreError, UnreachableError
from bentofs.store.location import Location
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2  # between two checks for cancellation
_JITTER = (0.8, 1.2)  # factor of a pause: clients that failed together come back one by one

_T = TypeVar("_T")


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait for an answer, and how often to ask again."""

    connect_seconds: float  # to make a connection
    silence_seconds: float  # a server that neither takes nor gives a byte for so long counts as hung
    attempts: float = math.inf
    seconds: float = math.inf  # no attempt begins later
    first_pause: float = 0.2  # seconds; doubled each time
    longest_pause: float = 4.0
    respite: float = 0.0  # seconds without requests to a server that gave no answer


class Retries:
    """The requests to one server, repeated by one policy."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self._lock = threading.Lock()
        self._failed_at = -math.inf
        self._failure = ""

    def call(self, location: Location, request: Callable[[], _T], stops: CancelTokens = ()) -> _T:
        """Make a request, with retries, and return its result. A StoreError is passed on at once.

        Raises:
            CancelledError: one of `stops` was set during a pause.
            StoreError: see `store.clients.error_classes.error_for`; the text names `location`.
        """
        attempts = self.attempts(location, stops)
        while True:
            try:
                answer = request()
            except Exception as error:
                attempts.failed(error)
            else:
                self._answered()
                return answer

    def attempts(self, location: Location, stops: CancelTokens = ()) -> Attempts:
        """Return the attempts of a request that the caller repeats.

        Raises:
            UnreachableError: the server gave another request no answer just now.
        """
        with self._lock:
            if time.monotonic() - self._failed_at < self.policy.respite:
                raise UnreachableError(f"{location.shown} cannot be reached: {self._failure}")
        return Attempts(self, location, stops)

    def _answered(self) -> None:
        with self._lock:
            self._failed_at = -math.inf

    def _gave_up(self, reason: str) -> None:
        with self._lock:
            self._failed_at, self._failure = time.monotonic(), reason


class Attempts:
    """The attempts of one request."""

    def __init__(self, retries: Retries, location: Location, stops: CancelTokens) -> None:
        self._retries = retries
        self._location = location
        self._stops = stops
        self._begun = time.monotonic()
        self._count = 0

    def proceeded(self) -> None:
        """Count from the start again: the last attempt got further than the ones before."""
        self._begun, self._count = time.monotonic(), 0

    def failed(self, error: Exception) -> None:
        """Wait before the next attempt, if there is one.

        Raises:
            CancelledError: one of the tokens was set.
            StoreError: it was the last attempt, or a retry does not help.
        """
        if isinstance(error, StoreError):
            raise error
        policy, location = self._retries.policy, self._location
        if not may_pass(error):
            raise error_for(error, location) from error
        pause = min(policy.first_pause * 2**self._count, policy.longest_pause)
        self._count += 1
        reason = reason_of(error, location.secrets)
        if self._count >= policy.attempts or time.monotonic() + pause >= self._begun + policy.seconds:
            self._retries._gave_up(reason)
            raise error_for(error, location) from error
        log.info("%s: %s; asked again in %.1f s", location.shown, reason, pause)
        end = time.monotonic() + pause * random.uniform(*_JITTER)
        while (left := end - time.monotonic()) > 0:
            refuse_if_stopped(self._stops)
            time.sleep(min(left, _POLL_SECONDS))
