"""Jobs: transfers that run some at a time, each reported when it ends. Interrupted jobs undo what they have done.

Threading: jobs run in their own threads. The main thread waits for them and handles signals.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import click

from bentofs.mount.cli.output import error_fields, size_text
from bentofs.mount.cli.progress import Reporter, Task
from bentofs.mount.errors import INTERRUPTED, exit_status_of
from bentofs.store.errors import StoreError

_POLL_SECONDS = 0.2

JobReport = tuple[str, dict[str, Any]]  # for people, for programs


class _Failed(click.ClickException):
    """A failure that was reported already. Carries only the exit status."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code  # type: ignore[misc]  # of the instance, as click itself does

    def show(self, file: Any = None) -> None:
        """Print nothing: the error was reported already."""


class Job(NamedTuple):
    """One transfer."""

    name: str  # for people
    run: Callable[[Task], JobReport]  # returns the report


def run_jobs(
    jobs: Iterator[Job], give_up: Callable[[], None], at_once: int, *, quiet: bool, as_json: bool, to_stderr: bool
) -> None:
    """Run transfers, some at a time, and report each when it ends. `give_up` makes those under way end."""
    status = 0

    def ended(job: Job, future: Future[JobReport], seconds: float) -> int:
        try:
            text, done = future.result()
        except Exception as error:
            code = exit_status_of(error)
            if as_json:
                reporter.say(json.dumps(error_fields(str(error), code, name=job.name)), err=to_stderr)
            sentence = _sentence(error)
            subject = "" if job.name in sentence else f"{job.name}: "
            reporter.say(f"bentofs: {subject}{sentence}", err=True)
            return code
        if as_json:
            reporter.say(json.dumps({**done, "seconds": round(seconds, 3)}), err=to_stderr)
        elif not quiet:
            reporter.say(f"{text} ({size_text(done['size'])}, {seconds:.1f} s)", err=to_stderr)
        return 0

    with _interruptible(), Reporter(quiet=quiet, as_json=as_json) as reporter:
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="transfer")
        # Submit no more than run at once: there may be very many jobs.
        under_way: dict[Future[JobReport], tuple[Job, list[float]]] = {}
        try:
            while True:
                for job in islice(jobs, at_once - len(under_way)):
                    times: list[float] = []
                    under_way[pool.submit(_timed, job, reporter, times)] = (job, times)
                if not under_way:
                    break
                done, _ = wait(under_way, _POLL_SECONDS, FIRST_COMPLETED)
                for future in [future for future in under_way if future in done]:
                    job, times = under_way.pop(future)
                    code = ended(job, future, times[0] if times else 0.0)
                    status = status or code
        except KeyboardInterrupt:
            give_up()
            reporter.say("bentofs: interrupted: transfers that run are undone", err=True)
            status = INTERRUPTED
        except BaseException:  # nobody reads the reports
            give_up()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if status:
        raise _Failed(status)


def _timed(job: Job, reporter: Reporter, times: list[float]) -> JobReport:
    task = reporter.task(job.name)
    begun = time.monotonic()
    try:
        return job.run(task)
    finally:
        times.append(time.monotonic() - begun)
        task.end()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C. A second signal ends the process at once."""

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _sentence(error: Exception) -> str:
    if isinstance(error, StoreError):
        return str(error)
    if os.environ.get("BENTOFS_DEBUG"):
        logging.getLogger(__name__).error("unexpected", exc_info=error)
    return f"this should not happen, please report it (BENTOFS_DEBUG=1 shows where): {error!r}"
