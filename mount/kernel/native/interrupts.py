"""Interrupts: let a program end while it waits for a slow answer.

The kernel sends INTERRUPT when a signal comes for a program that waits for a request. The program waits on, even after
SIGKILL, until the request is answered. So such a request is answered EINTR at once, and its worker's later result is
dropped. Only requests that change nothing are answered so.

A call that ends with EINTR is an error to most programs. So only signals that end a program count, not those that
merely wake it (SIGCHLD, SIGALRM, Go's SIGURG). The kernel sends INTERRUPT once for a request. While the request lasts,
this module checks the program's signals itself.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable

from bentofs.store.util.threads import started

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05  # between two checks of the signals of interrupted programs
_EARLY_SECONDS = 10.0  # how long a request that is not known yet may take to become known, on a busy machine
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL)
_ENDING_MASK = sum(1 << (number - 1) for number in _ENDING)


class Interrupts:
    """The requests of one mount that may be interrupted. Threading: any thread."""

    def __init__(self, answer: Callable[[int], None]) -> None:
        """`answer` tells the kernel EINTR for the request of this number."""
        self._answer = answer
        self._running: dict[int, int] = {}  # by request: the kernel's number of the thread that waits
        self._asked: dict[int, float] = {}  # by request: when its INTERRUPT came
        self._is_watched = False
        self._lock = threading.Lock()  # guards the two above

    def begin(self, unique: int, thread: int) -> None:
        """Note that a request is being served."""
        self._running[unique] = thread

    def finish(self, unique: int) -> bool:
        """Note that a request is served. Return False if it was answered EINTR meanwhile."""
        return self._running.pop(unique, None) is not None

    def interrupt(self, unique: int) -> None:
        """Answer a request once its program is to end, perhaps now. A request that is not known yet may become known in
        a moment: another thread has read it."""
        thread = self._running.get(unique)
        if thread is not None and self._end(unique, thread):
            return
        with self._lock:
            self._asked[unique] = time.monotonic()
            if self._is_watched:
                return
            self._is_watched = True
        if not started(threading.Thread(target=self._watch, name="interrupts", daemon=True)):
            with self._lock:
                self._is_watched = False  # the next interrupt tries again

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            with self._lock:
                asked = list(self._asked.items())
                if not asked:
                    self._is_watched = False
                    return
            since = time.monotonic() - _EARLY_SECONDS
            for unique, at in asked:
                thread = self._running.get(unique)
                if at < since if thread is None else self._end(unique, thread):
                    with self._lock:
                        self._asked.pop(unique, None)

    def _end(self, unique: int, thread: int) -> bool:
        """Answer a request if its program is to end. Return True if it is to end."""
        if not is_to_end(thread):
            return False
        if self.finish(unique):
            self._answer(unique)
        return True


def is_to_end(thread: int) -> bool:
    """Tell whether a signal that ends programs waits for a thread. Return True if that cannot be known, for example for
    a program in its own container: it was sent some signal."""
    if not thread:
        return True
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            fields = dict(line.split(b":", 1) for line in status if line.startswith((b"SigPnd", b"ShdPnd", b"SigBlk")))
        own, shared, blocked = (int(fields[name], 16) for name in (b"SigPnd", b"ShdPnd", b"SigBlk"))
    except (OSError, KeyError, ValueError) as error:
        log.debug("the signals of %d cannot be read: %s", thread, error)
        return True
    return bool((own | shared) & ~blocked & _ENDING_MASK)
