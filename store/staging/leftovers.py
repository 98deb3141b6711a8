"""Leftovers: the parts of a staging area that nobody needs any more.

A session whose process has ended is dead. Its uploads can be resumed, and its journal tells what to finish or undo: the
next session takes over both (`store.staging.area`). Its other staged files, and empty dead sessions, are leftovers.

Threading: any thread, beside any process: an area's lock and a session's lock are held as the area itself holds them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from bentofs.store.staging.session import open_lock, try_lock
from bentofs.store.util.fs import remove_tree

_UPLOADS = ("spool", "importing")
_KEPT = (*_UPLOADS, "intents")


class SessionState(NamedTuple):
    """One session of an area."""

    path: str
    is_alive: bool
    has_uploads: bool  # which can be resumed
    has_intents: bool  # changes of the store to be finished or undone

    @property
    def leftovers(self) -> str | None:
        """The path of what nobody needs: the whole session, or what it staged. None for nothing."""
        if self.is_alive or self.has_intents:
            return None
        staged = os.path.join(self.path, "staged")
        if self.has_uploads:
            return staged if os.path.isdir(staged) else None
        return self.path


def sessions_of(area: str) -> list[SessionState]:
    """Return the sessions of the area at a path. Empty if there is no area."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError), _locked(area) as is_ours:
        if is_ours:
            folder = os.path.join(area, "sessions")
            found = [state for name in sorted(os.listdir(folder)) if (state := _state(os.path.join(folder, name)))]
    return found


def remove_leftovers(area: str, session: SessionState) -> None:
    """Remove the leftovers of a session, unless a process has taken it over meanwhile."""
    with suppress(FileNotFoundError, NotADirectoryError), _locked(area) as is_ours:
        now = _state(session.path) if is_ours else None
        if now is not None and now.leftovers is not None:
            remove_tree(now.leftovers)


def _state(path: str) -> SessionState | None:
    """Look at a session. Call it under the area's lock."""
    try:
        descriptor = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # not a session, or about to be removed
        return None
    with os.fdopen(descriptor, "r+b") as lock:
        is_alive = not try_lock(lock)
        filled = {name for name in _KEPT if _is_filled(os.path.join(path, name))}
    return SessionState(path, is_alive, bool(filled & set(_UPLOADS)), "intents" in filled)


def _is_filled(folder: str) -> bool:
    try:
        return bool(os.listdir(folder))
    except FileNotFoundError:
        return False


@contextmanager
def _locked(area: str) -> Iterator[bool]:
    """Hold the area's lock, and yield True. Yield False if another process holds it."""
    if not os.path.isdir(os.path.join(area, "sessions")):
        yield False
        return
    with open_lock(os.path.join(area, "area.lock")) as lock:
        yield try_lock(lock)
