"""The end of a daemon: how long it may take, and who is told.

A signal ends the daemon within ten seconds, since service managers and container runtimes kill it then. After an
unmount, imports that run in the background may finish first.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from bentofs.mount.daemon.notify import ServiceManager
from bentofs.mount.daemon.running import END_SECONDS, FINISH_SECONDS
from bentofs.mount.kernel.session import Session
from bentofs.store.util.threads import started

log = logging.getLogger(__name__)


class End:
    """The end of one daemon."""

    def __init__(self, manager: ServiceManager, status: str) -> None:
        """`status`: what the service manager shows meanwhile."""
        self._manager = manager
        self._status = status
        self._timer = threading.Timer(END_SECONDS, self._end_now)
        self._timer.daemon = True

    def begin(self, by_signal: bool) -> None:
        """Begin to end."""
        self._manager.stopping(self._status)
        if by_signal:
            self.hurry()

    def let_finish(self, finish: Callable[[], None], session: Session) -> None:
        """Call `finish`, which waits for work in the background. Go on without it after a while, or after a signal."""
        work = threading.Thread(target=finish, name="finish", daemon=True)
        if not started(work) or not session.wait_for(work, FINISH_SECONDS):
            log.info("running imports are left to the next mount")

    def hurry(self) -> None:
        """End this process after END_SECONDS, whatever it waits for, unless `is_there` is called before. The next mount
        recovers what it was doing, as after a crash."""
        if not self._timer.is_alive() and not started(self._timer):
            log.warning("no thread can begin that would limit how long the end takes")

    def is_there(self) -> None:
        """Tell that everything is closed."""
        self._timer.cancel()

    def _end_now(self) -> None:
        log.info("ended before everything was closed: the store, a server or the kernel does not answer")
        logging.shutdown()
        os._exit(0)
