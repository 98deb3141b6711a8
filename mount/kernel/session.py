"""The session: the threads that serve one mount, with any engine.

When all threads are stuck for some milliseconds, more are added, so that slow operations never starve others. The added
threads end when they are no longer needed.

Stopping: signals are blocked in all threads. The main thread waits for them, and unmounts first. Then every thread's
next read of the device reports that there is no device. (libfuse's own signal handlers end only one of several loops.)
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

from bentofs.mount.kernel.engine import Engine
from bentofs.mount.kernel.mount_table import UnmountError, mount_at, read_ahead, unmount
from bentofs.mount.kernel.operations import Operations
from bentofs.mount.kernel.workers import Workers

log = logging.getLogger(__name__)

# Permanent threads. A second one would wait for Python's lock more than it serves, and make streaming a fifth slower.
# It would help only several readers of a cold disk, and for them more threads come soon.
THREADS = 1
GRACE_SECONDS = 2.0  # how long requests under way may take when the mount ends
_POLL_SECONDS = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def block_signals() -> None:
    """Block the signals that end a mount, in this thread and all that it starts. `Session.run` waits for them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


class Session:
    """One mount, from `run` until it is unmounted."""

    def __init__(self, engine: Engine, operations: Operations, mountpoint: str, read_ahead: int | None = None) -> None:
        """`read_ahead`: bytes that the kernel should read ahead, if it lets us set that."""
        self._engine = engine
        self._read_ahead = read_ahead
        self._operations = operations
        self._mountpoint = mountpoint
        self._workers = Workers(THREADS)

    def run(self, ready: Callable[[], None], ending: Callable[[bool], None]) -> bool:
        """Mount, serve until a signal or an unmount from outside, unmount. Return True if a signal ended it. Call it
        in the main thread only.

        `block_signals` must have been called before any thread was started. `ready` is called from another thread once
        the mount answers. `ending` is called as soon as it ends; its argument is True after a signal.

        Raises:
            CannotMountError: the mount failed.
        """
        mount = self._engine.mount(self._operations, self._workers)
        self._workers.start(mount.serve, mount.one_by_one, mount.watched())
        main_thread = threading.get_ident()
        self._workers.on_end(lambda: signal.pthread_kill(main_thread, signal.SIGTERM))
        threading.Thread(target=self._announce, args=(ready,), name="ready", daemon=True).start()
        received = signal.sigwait(_SIGNALS)
        log.info("ending: %s", "unmounted" if self._workers.have_ended() else signal.Signals(received).name)
        by_signal = not self._workers.have_ended()
        ending(by_signal)
        if by_signal:
            self._unmount()
        if self._workers.await_end(GRACE_SECONDS):
            mount.tear_down()
        else:
            # Unmounted lazily, but files are still open. When this process ends, the kernel gives their readers an
            # error.
            log.info("ended while files were open")
        return by_signal

    def wait_for(self, work: threading.Thread, seconds: float) -> bool:
        """Wait until a thread has ended, but no longer than so many seconds, and not after a signal that ends the
        mount. Tell whether the thread has ended."""
        deadline = time.monotonic() + seconds
        while work.is_alive() and (left := deadline - time.monotonic()) > 0:
            if signal.sigtimedwait(_SIGNALS, min(left, _POLL_SECONDS)) is not None:
                break
        return not work.is_alive()

    def is_busy(self) -> bool:
        """Tell whether a request is being served."""
        return self._workers.are_busy()

    def _announce(self, ready: Callable[[], None]) -> None:
        # From the table. If this process asked its own mount and was killed before it answered, that thread would wait
        # for ever. The device would stay open, and all readers would hang.
        mount = mount_at(self._mountpoint)
        if self._read_ahead is not None and mount is not None:
            try:
                read_ahead(mount.device, self._read_ahead)
            except OSError as error:
                log.debug("the read-ahead of the kernel could not be set: %s", error)
        self._engine.begin()
        ready()

    def _unmount(self) -> None:
        """Take the mount out of the tree at once. Open files stay readable for a moment."""
        try:
            unmount(self._mountpoint, lazy=True)
        except UnmountError as error:
            log.warning(
                "%s could not be unmounted (%s): try `fusermount -u -z %s`", self._mountpoint, error, self._mountpoint
            )
