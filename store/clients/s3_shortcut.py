"""Shortcut: the way past the library for one kind of request to a bucket (`store.clients.s3_plain`).

It is learnt from a request that the library has made with success, unless it is known. It is dropped when the server
wants something else, and learnt again, a few times in an hour. A connection that breaks is no reason to drop it.

Threading: any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from bentofs.store.clients.s3_plain import Manner, PlainRequests

LESSONS = 5  # limit on how often a manner is learnt in `_PERIOD_SECONDS`
_PERIOD_SECONDS = 3600.0

# The requests that a task of the event loop sent: URL and headers.
_noted: ContextVar[list[tuple[str, Mapping[str, Any]]]] = ContextVar("noted")


class Shortcut:
    """The requests of one kind, for one operation of S3."""

    def __init__(
        self, operation: str, lessons: int, begin: Callable[[Manner], PlainRequests], known: Manner | None
    ) -> None:
        """`lessons`: how often it may be learnt in an hour; `begin`: returns the requests of a manner; `known`: the
        manner, if no request of the library has to show it. Raises what `begin` raises."""
        self._event = f"before-send.s3.{operation}"
        self._lessons = lessons
        self._begin = begin
        self._known = known
        self._dropped: list[float] = []  # times (monotonic)
        self._requests: PlainRequests | None = None
        if known is not None:
            self.learn(known)

    @property
    def requests(self) -> PlainRequests | None:
        """Return the requests that need no library; None while the manner is not known, or after it has changed."""
        if self._requests is None and self._known is not None:
            self.learn(self._known)
        return self._requests

    def listen(self, client: Any) -> list[tuple[str, Mapping[str, Any]]]:
        """Return a list to which this task's next request of the library's client will be added, if that is needed."""
        noted: list[tuple[str, Mapping[str, Any]]] = []
        if self._requests is None and self._may_learn():
            client.meta.events.register(self._event, _note_request, unique_id=self._event)
            _noted.set(noted)
        return noted

    def learn(self, manner: Manner | None) -> None:
        """Learn the manner of a request that had success; None: it is unusual, and so will others be."""
        if self._requests is None and self._may_learn():
            if manner is None:
                self._lessons = 0
            else:
                self._requests = self._begin(manner)

    def drop(self, requests: PlainRequests | None) -> None:
        """Note that the library alone had success: the manner of `requests` is not enough, or outdated."""
        if requests is not None and self._requests is requests:
            self._dropped.append(time.monotonic())
            self._requests = None
            requests.close()

    def close(self) -> None:
        """Close the connections."""
        if self._requests is not None:
            self._requests.close()

    def _may_learn(self) -> bool:
        earliest = time.monotonic() - _PERIOD_SECONDS
        self._dropped = [at for at in self._dropped if at > earliest]
        return len(self._dropped) < self._lessons


def _note_request(request: Any, **_: object) -> None:
    """Record a request. The library calls this before it sends it."""
    with suppress(LookupError):
        _noted.get().append((request.url, request.headers))
