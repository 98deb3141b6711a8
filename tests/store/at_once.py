"""Helpers to test concurrent users of one thing: threads and processes."""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from tests.harness import ROOT, ended

_SECONDS = 60.0  # time limit for all together

Argument = TypeVar("Argument")


def in_threads(work: Callable[[Argument], object], arguments: Iterable[Argument]) -> None:
    """Do the work in a thread for each argument. None may raise an exception or hang."""
    failures: list[BaseException] = []

    def run(argument: Argument) -> None:
        try:
            work(argument)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(argument,), daemon=True) for argument in arguments]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not failures, failures
    assert not any(thread.is_alive() for thread in threads), "a thread has not ended"


def in_processes(script: str, path: Path, count: int) -> None:
    """Run a script of this project in this many processes. Each gets the path, a number, and the time (seconds) at
    which to begin. None may fail or write to stderr."""
    start = str(time.time() + 1.0)
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(
                ended(
                    subprocess.Popen(
                        [sys.executable, "-c", script, path, str(number), start], cwd=ROOT, stderr=subprocess.PIPE
                    )
                )
            )
            for number in range(count)
        ]
        said = [worker.communicate(timeout=_SECONDS)[1].decode(errors="backslashreplace") for worker in workers]
    assert said == [""] * count
    assert [worker.returncode for worker in workers] == [0] * count
