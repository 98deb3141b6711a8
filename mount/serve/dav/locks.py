"""Locks: the write locks of clients on paths in `incoming/` (RFC 4918, sections 6, 7 and 10.4).

They bind WebDAV's clients only, and end with the server. A lock that is not refreshed ends by itself.

Threading: the event loop's thread only.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_LONGEST = 600.0  # seconds
_MOST = 1000  # locks
_LIST = re.compile(r"\s*(?:<([^>]*)>\s*)?\(([^)]*)\)")
_CONDITION = re.compile(r"\s*(Not\s+)?(?:<([^>]*)>|\[([^\]]*)\])", re.IGNORECASE)
_SECONDS = re.compile(r"Second-(\d+)", re.IGNORECASE)


class LockedError(Exception):
    """A client holds a lock on a resource, and this request does not show it. The text is a sentence."""


class TooManyLocksError(Exception):
    """No more locks can be given."""


@dataclass
class Lock:
    """A lock on one path, relative to `incoming/`."""

    path: str
    is_deep: bool  # it covers all below
    is_exclusive: bool
    owner: str  # XML of the client
    seconds: float
    token: str = field(default_factory=lambda: f"urn:uuid:{uuid.uuid4()}")
    until: float = 0.0  # monotonic

    def covers(self, path: str) -> bool:
        """Return True if it covers a path."""
        return path == self.path or (self.is_deep and (not self.path or path.startswith(f"{self.path}/")))

    def refresh(self, seconds: float) -> None:
        """Let it last for so many seconds from now on."""
        self.seconds = seconds
        self.until = time.monotonic() + seconds


class Condition(NamedTuple):
    """One condition of a header If."""

    negated: bool
    token: str | None
    etag: str | None


class IfList(NamedTuple):
    """Conditions that must all hold for one resource."""

    resource: str | None  # the URL of a tagged list; None for the request's own resource
    conditions: Sequence[Condition]


class Locks:
    """The locks of one server."""

    def __init__(self) -> None:
        self._locks: dict[str, Lock] = {}  # by token

    def on(self, path: str) -> list[Lock]:
        """Return the locks that cover a path."""
        return [lock for lock in self._living() if lock.covers(path)]

    def below(self, path: str) -> list[Lock]:
        """Return the locks on members of a directory."""
        return [lock for lock in self._living() if lock.path.startswith(f"{path}/" if path else "")]

    def find(self, token: str, path: str) -> Lock | None:
        """Return the lock of a token, if it covers a path."""
        lock = self._locks.get(token)
        return lock if lock is not None and lock in self.on(path) else None

    def take(self, lock: Lock) -> None:
        """Take a lock.

        Raises:
            LockedError: another lock is in the way.
            TooManyLocksError
        """
        others = self.on(lock.path) + (self.below(lock.path) if lock.is_deep else [])
        if any(lock.is_exclusive or other.is_exclusive for other in others):
            raise LockedError("another client has locked it")
        if len(self._locks) >= _MOST:
            raise TooManyLocksError
        lock.refresh(lock.seconds)
        self._locks[lock.token] = lock

    def release(self, lock: Lock) -> None:
        """Release a lock."""
        self._locks.pop(lock.token, None)

    def forget(self, path: str) -> None:
        """Release the locks at and below a path that is gone."""
        for lock in [*self.below(path), *(lock for lock in self._living() if lock.path == path)]:
            self.release(lock)

    def check(self, path: str, shown: Iterable[str], *, with_members: bool = False) -> None:
        """Check that a request may change a path. `shown`: the tokens that it shows; `with_members`: it changes all
        below as well.

        Raises:
            LockedError
        """
        tokens = set(shown)
        found = self.on(path) + (self.below(path) if with_members else [])
        exclusive = [lock for lock in found if lock.token not in tokens]
        if exclusive and not any(lock.token in tokens for lock in self.on(path) if not lock.is_exclusive):
            raise LockedError("another client has locked it")

    def _living(self) -> list[Lock]:
        now = time.monotonic()
        for lock in [lock for lock in self._locks.values() if lock.until < now]:
            self.release(lock)
        return list(self._locks.values())


def parse_if(header: str | None) -> list[IfList] | None:
    """Parse a header If. Return None if there is none.

    Raises:
        ValueError: it is malformed.
    """
    if header is None:
        return None
    lists: list[IfList] = []
    resource: str | None = None
    position = 0
    while position < len(header.rstrip()):
        match = _LIST.match(header, position)
        if match is None:
            raise ValueError("the header If is malformed")
        resource = match[1] if match[1] is not None else resource
        lists.append(IfList(resource, _conditions(match[2])))
        position = match.end()
    if not lists:
        raise ValueError("the header If is malformed")
    return lists


def _conditions(content: str) -> list[Condition]:
    found: list[Condition] = []
    position = 0
    while position < len(content.rstrip()):
        match = _CONDITION.match(content, position)
        if match is None:
            raise ValueError("the header If is malformed")
        found.append(Condition(match[1] is not None, match[2], match[3]))
        position = match.end()
    if not found:
        raise ValueError("the header If is malformed")
    return found


def tokens_of(lists: Sequence[IfList] | None) -> list[str]:
    """Return the tokens that a header If shows."""
    conditions = [condition for each in lists or () for condition in each.conditions]
    return [condition.token for condition in conditions if condition.token is not None and not condition.negated]


def wanted_seconds(header: str | None) -> float:
    """Return how long a lock lasts by a header Timeout."""
    match = _SECONDS.search(header or "")
    return min(float(match[1][:9]), _LONGEST) if match else _LONGEST
