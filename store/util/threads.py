"""Threads that a process can do without for a while. A container or a user's limit may allow no more threads: Python
then raises RuntimeError, and nothing that others wait for may depend on the thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger(__name__)


def started(thread: threading.Thread) -> bool:
    """Start a thread. Return False if the system allows no more threads now."""
    try:
        thread.start()
    except RuntimeError as error:
        log.debug("%s: %s", thread.name, error)
        return False
    return True


def run_beside(work: Callable[[], None], name: str) -> None:
    """Do some work in a thread of its own. If the system allows no more threads now, do it here."""
    if not started(threading.Thread(target=work, name=name, daemon=True)):
        work()


def handed_over(pool: ThreadPoolExecutor, work: Callable[[], None]) -> bool:
    """Hand work over to a pool. Return False if the pool will not do it: the system allows no more threads now.

    A pool keeps what it could not start a thread for, and one of its other threads may do it later.
    """
    claim = threading.Lock()

    def claimed() -> None:
        if claim.acquire(blocking=False):
            work()

    try:
        pool.submit(claimed)
    except RuntimeError as error:
        log.debug("%s", error)
        return not claim.acquire(blocking=False)
    return True
