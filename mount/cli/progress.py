"""Show the progress of transfers on standard error: bars on a terminal, a line now and then anywhere else.

Threading: any thread.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_LINE_SECONDS = 10.0  # between two lines about one transfer


class Task:
    """One transfer."""

    def advance(self, count: int) -> None:
        """Add to the number of bytes done. `count` is below 0 when some must be sent again."""

    def expect(self, size: int) -> None:
        """Set the total number of bytes."""

    def end(self) -> None:
        """End the display of the transfer."""


class Reporter:
    """Shows transfers within its context."""

    def __init__(self, *, quiet: bool) -> None:
        self._bars: Progress | None = None
        self._quiet = quiet
        if not quiet and sys.stderr.isatty():
            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,  # it may be a file
                redirect_stderr=False,
            )

    def task(self, name: str) -> Task:
        """Begin to show a transfer."""
        if self._bars is not None:
            return _Bar(self._bars, name)
        return Task() if self._quiet else _Lines(name)

    def say(self, text: str, *, err: bool) -> None:
        """Print a line on standard output, or on standard error; above the bars if there are any."""
        if self._bars is not None and (sys.stderr if err else sys.stdout).isatty():
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=err)

    def __enter__(self) -> Reporter:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


class _Bar(Task):
    def __init__(self, bars: Progress, name: str) -> None:
        self._bars = bars
        self._id = bars.add_task(name, total=None)

    def advance(self, count: int) -> None:
        self._bars.advance(self._id, count)

    def expect(self, size: int) -> None:
        self._bars.update(self._id, total=size)

    def end(self) -> None:
        self._bars.remove_task(self._id)


class _Lines(Task):
    def __init__(self, name: str, write: Callable[[str], object] = sys.stderr.write) -> None:
        self._name = name
        self._write = write
        self._lock = threading.Lock()
        self._begun = self._told = time.monotonic()
        self._done = 0
        self._size: int | None = None

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._told < _LINE_SECONDS:
                return
            self._told = now
            line = self._line(now - self._begun)
        self._write(line)

    def expect(self, size: int) -> None:
        self._size = size

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds
        line = f"{self._name}: {decimal(self._done)}"
        if self._size:
            line += f" of {decimal(self._size)} ({100 * self._done // self._size} %)"
        line += f", {decimal(int(rate))}/s"
        if self._size and rate > 0:
            line += f", {max(0, self._size - self._done) / rate:.0f} s left"
        return line + "\n"
