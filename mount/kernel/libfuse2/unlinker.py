"""Unlinker: threads that unlink paths of the daemon's own mount, so that the kernel forgets the nodes there.

The threads do nothing else. So the file system can tell these unlinks from a user's, by the thread's number, which the
kernel sends along. A callback may wait for an unlink only briefly: the kernel might hold a lock for that callback which
the unlink needs. That is a directory's lock, and a slow lookup holds it, too. So each directory has its own thread, as
long as there is something to unlink in it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

from bentofs.store.util.threads import started

log = logging.getLogger(__name__)

_PATIENCE = 0.25  # seconds that a callback waits


class _Wanted:
    """One path to detach, and whether somebody still waits for it."""

    __slots__ = ("abandoned", "detached", "done", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.done = threading.Event()
        self.detached = False
        self.abandoned = False


class Unlinker:
    """Detaches paths of one mount."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._device: int | None = None
        self._tried_late: Callable[[str, bool], None] = lambda _path, _detached: None
        self._lock = threading.Lock()
        self._wanted: dict[str, deque[_Wanted]] = {}  # by their directory, each of which has a thread
        self._threads: set[int] = set()  # by the kernel's numbers
        self._stopped = False

    def begin(self, tried_late: Callable[[str, bool], None]) -> None:
        """Start to detach, since the mount answers now. `tried_late` is told the result for paths for which nobody
        waits any more."""
        self._tried_late = tried_late
        self._device = os.stat(self._mountpoint).st_dev

    def is_caller(self, thread_id: int) -> bool:
        """Tell whether a request came from a thread of the unlinker. `thread_id`: the kernel's number of the calling
        thread."""
        return thread_id in self._threads

    def detach(self, path: str) -> bool | None:
        """Unlink an absolute path of the mount. Return True if that is done, False if it failed, None if it is not
        known yet."""
        wanted = _Wanted(path)
        self._begin(wanted)
        wanted.done.wait(_PATIENCE)
        with self._lock:
            wanted.abandoned = not wanted.done.is_set()
            return None if wanted.abandoned else wanted.detached

    def detach_soon(self, path: str) -> None:
        """Do what `detach` does, but without waiting. `tried_late` is told the result."""
        wanted = _Wanted(path)
        wanted.abandoned = True
        self._begin(wanted)

    def stop(self) -> None:
        """End the threads, without waiting: they may be waiting for this mount."""
        self._stopped = True

    def _begin(self, wanted: _Wanted) -> None:
        folder = wanted.path.rpartition("/")[0]
        with self._lock:
            others = self._wanted.get(folder)
            if others is not None:
                others.append(wanted)
                return
            self._wanted[folder] = deque([wanted])
        if not started(threading.Thread(target=self._run, args=(folder,), name="unlinker", daemon=True)):
            with self._lock:
                given_up = self._wanted.pop(folder)
                for each in given_up:
                    each.done.set()
            for each in given_up:
                if each.abandoned:
                    self._tried_late(each.path, False)

    def _run(self, folder: str) -> None:
        number = threading.get_native_id()
        self._threads.add(number)
        while (wanted := self._next(folder)) is not None:
            detached = self._unlink(wanted.path)
            with self._lock:
                wanted.detached = detached
                wanted.done.set()
                late = wanted.abandoned
            if late:
                self._tried_late(wanted.path, detached)
        self._threads.discard(number)

    def _next(self, folder: str) -> _Wanted | None:
        with self._lock:
            waiting = self._wanted[folder]
            if waiting and not self._stopped:
                return waiting.popleft()
            del self._wanted[folder]
            return None

    def _unlink(self, path: str) -> bool:
        """Unlink a path, if it is in our mount. The mount may have been taken out of the tree, or may lie under another
        one; then the path leads to somebody's files."""
        parent, _, name = path.rpartition("/")
        try:
            folder = os.open(self._mountpoint + parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if os.fstat(folder).st_dev != self._device:
                    log.info("%s is not detached: another file system is there", path)
                    return False
                os.unlink(name, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:  # the whole model is gone, or the mount ends: the next lookup tries again
            log.info("%s could not be detached: %s", path, error)
            return False
        return True
