"""Detacher: the thread that unlinks paths of the daemon's own mount, so that the kernel forgets what stood there.

One thread, so that the file system can tell these unlinks from a user's: by the thread's number, which the kernel sends
along. A callback may wait for it only briefly: the kernel might hold a lock for that callback which the unlink needs.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError  # a class of its own before Python 3.11

log = logging.getLogger(__name__)

_PATIENCE = 0.25  # seconds that a callback waits


class Detacher:
    """Detaches paths of one mount."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint
        self._wanted: queue.SimpleQueue[tuple[str, Future[bool]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="detacher", daemon=True)
        self._thread.start()

    def is_caller(self, thread_id: int) -> bool:
        """Whether a request came from this thread; `thread_id` as the kernel numbers threads."""
        return thread_id == self._thread.native_id

    def detach(self, path: str) -> bool:
        """Unlink an absolute path of the mount; False if that has not happened yet."""
        done: Future[bool] = Future()
        self._wanted.put((path, done))
        try:
            return done.result(_PATIENCE)
        except FutureTimeoutError:
            return False

    def stop(self) -> None:
        """End the thread, without waiting: it may be waiting for this mount."""
        self._wanted.put(None)

    def _run(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            path, done = wanted
            try:
                os.unlink(self._mountpoint + path)
            except OSError as error:  # the model has gone altogether, or the mount ends: the next lookup tries again
                log.info("%s could not be detached: %s", path, error)
                done.set_result(False)
            else:
                done.set_result(True)
