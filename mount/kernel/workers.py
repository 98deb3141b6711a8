"""Workers: the threads that serve requests. One or a few are permanent. More come while all are stuck, and end later.

Knows no FUSE: the caller gives a function that serves until the mount ends, and one that serves a single request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

# Requests on cached bytes take a tenth of this. So a request that takes this long waits for a disk.
STUCK_SECONDS = 0.001  # more workers come after no worker has begun a request for this long
_WATCH_SECONDS = 0.01  # between two checks of that; each check takes the processor from a worker
_AWAKE_SECONDS = 0.1  # the watcher stays awake so long after a request; waking it for each one costs more
MAX_WORKERS = 1000
_IDLE_SECONDS = 0.3  # when ending: after so long without a request, none will come


class _Worker:
    """One thread's state; written by that thread only."""

    __slots__ = ("began", "busy_since")

    def __init__(self) -> None:
        self.busy_since = 0.0  # monotonic; 0 while idle, or while it waits in libfuse
        self.began = 0.0  # when its last request began; monotonic


class Workers:
    """The threads of one mount."""

    def __init__(self, always: int) -> None:
        """`always`: the number of permanent threads."""
        self._always = always
        self._local = threading.local()
        self._workers: tuple[_Worker, ...] = ()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()  # guards the two above
        self._ended = threading.Event()
        self._activity = threading.Event()
        self._watcher_sleeps = False
        self._told_full = False
        self._new_server: Callable[[], Callable[[], bool]] | None = None
        self._are_waiting: Callable[[], bool] = lambda: False

    def start(
        self, serve: Callable[[], None], new_server: Callable[[], Callable[[], bool]], are_waiting: Callable[[], bool]
    ) -> None:
        """Begin to serve.

        `serve` serves until the mount ends. `new_server` makes a function for one thread, which serves one request and
        tells whether there may be more. `are_waiting` tells whether requests wait for a worker.
        """
        self._new_server = new_server
        self._are_waiting = are_waiting

        def serve_to_the_end() -> None:
            serve()
            self._ended.set()

        for number in range(self._always):
            self._add(f"worker-{number}", serve_to_the_end)
        threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def guard(self, name: str, work: Callable[..., int], answer: Callable[[BaseException, str], int]) -> Any:
        """Return a callback that does `work`. Its worker counts as busy meanwhile. It always returns an int: `answer`
        makes one of any exception that `work` raises."""
        local = self._local
        monotonic = time.monotonic

        def callback(*arguments: Any) -> int:
            worker = local.worker
            worker.busy_since = worker.began = monotonic()
            if self._watcher_sleeps:
                self._watcher_sleeps = False
                self._activity.set()
            try:
                return work(*arguments)
            except BaseException as error:
                return answer(error, name)
            finally:
                worker.busy_since = 0.0

        return callback

    def have_ended(self) -> bool:
        """Tell whether a worker has found that there is nothing more to serve."""
        return self._ended.is_set()

    def are_busy(self) -> bool:
        """Tell whether a request is being served."""
        return any(worker.busy_since for worker in self._workers)

    def on_end(self, tell: Callable[[], None]) -> None:
        """Call `tell`, in some thread, once `have_ended` is true."""

        def wait() -> None:
            self._ended.wait()
            tell()

        threading.Thread(target=wait, name="end", daemon=True).start()

    def await_end(self, grace: float) -> bool:
        """Wait until all workers have ended. Return False if they have not, and either no request is under way any more
        or `grace` seconds are over."""
        deadline = idle_deadline = time.monotonic()
        deadline += grace
        idle_deadline += _IDLE_SECONDS
        while time.monotonic() < min(deadline, idle_deadline):
            with self._lock:
                if not self._threads:
                    return True
                if self.are_busy():
                    idle_deadline = time.monotonic() + _IDLE_SECONDS
            time.sleep(0.01)
        return False

    def _add(self, name: str, serve: Callable[[], None]) -> None:
        worker = _Worker()

        def forget() -> None:
            with self._lock:
                self._workers = tuple(other for other in self._workers if other is not worker)
                self._threads.discard(thread)

        def run() -> None:
            self._local.worker = worker
            try:
                serve()
            finally:
                forget()

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            self._workers += (worker,)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            forget()
            raise

    def _watch(self) -> None:
        """Add workers while all are stuck. Sleep while nothing happens."""
        while not self._ended.is_set():
            self._activity.clear()
            self._watcher_sleeps = True
            if not self._are_active():  # a request may have begun before the flag was set
                self._activity.wait()
            self._watcher_sleeps = False
            while self._are_active():
                time.sleep(_WATCH_SECONDS)
                self._add_if_stuck()

    def _are_active(self) -> bool:
        """Tell whether requests are being served, or were a moment ago."""
        since = time.monotonic() - _AWAKE_SECONDS
        return any(worker.busy_since or worker.began > since for worker in self._workers)

    def _add_if_stuck(self) -> None:
        workers = self._workers
        busy = [worker.busy_since for worker in workers]
        if not any(busy) or time.monotonic() - max(worker.began for worker in workers) < STUCK_SECONDS:
            return
        # A worker that looks idle may wait in libfuse, which locks a path that is being renamed or removed.
        if not all(busy) and not self._are_waiting():
            return
        # Grow by half each time: many readers that come at once must not wait for one new thread after another.
        wanted = min(max(1, len(workers) // 2), MAX_WORKERS - len(workers))
        if wanted <= 0 and not self._told_full:
            self._told_full = True
            log.warning("all %d workers are busy; requests wait", len(workers))
        try:
            for _ in range(wanted):
                self._add("extra-worker", self._serve_while_needed)
        except RuntimeError as error:  # a container may limit threads; the next check tries again
            if not self._told_full:
                self._told_full = True
                log.warning("all %d workers are busy, and no more can begin: %s", len(workers), error)

    def _serve_while_needed(self) -> None:
        if self._new_server is None:
            raise RuntimeError("not started")
        serve_one = self._new_server()
        while serve_one():
            if sum(not worker.busy_since for worker in self._workers) > self._always:
                return
        self._ended.set()
