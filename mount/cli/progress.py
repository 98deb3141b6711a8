"""Show the progress of long work on standard error: bars on a terminal, a line every ten seconds anywhere else.

    with Reporter(quiet=False, as_json=as_json) as reporter:
        with reporter.task("iris:v1", model.size) as task:
            for part in parts:
                ...
                task.advance(len(part))
        reporter.say("iris:v1: measured")

Threading: any thread.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

import click

from bentofs.mount.cli.output import size_text

if TYPE_CHECKING:
    from bentofs.mount.cli.bars import Bars

_LINE_SECONDS = 10.0  # between two lines about one task


class Task:
    """One piece of work that takes time."""

    def advance(self, count: int) -> None:
        """Add to the amount that is done. `count` is below 0 if some must be done again."""

    def expect(self, total: int) -> None:
        """Set the total amount."""

    def end(self) -> None:
        """End the display of the task."""

    def __enter__(self) -> Task:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Reporter:
    """Shows tasks within its context."""

    def __init__(self, *, quiet: bool, as_json: bool = False) -> None:
        """`quiet`: show no progress. `as_json`: a program reads the results, so show progress on a terminal only."""
        self._bars: Bars | None = None
        self._is_silent = quiet or as_json
        if not quiet and sys.stderr.isatty():
            from bentofs.mount.cli.bars import Bars  # rich takes long to load, and much memory

            self._bars = Bars()

    def task(self, name: str, total: int | None = None, *, unit: str | None = None) -> Task:
        """Begin to show a task. `unit`: the plural of the things that are counted; None for bytes."""
        if self._bars is not None:
            return _Bar(self._bars, name, total, unit)
        return Task() if self._is_silent else _Lines(name, total, unit)

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line on standard output, or on standard error; above the bars if there are any."""
        if self._bars is not None and (sys.stderr if err else sys.stdout).isatty():
            self._bars.say(text)
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
    def __init__(self, bars: Bars, name: str, total: int | None, unit: str | None) -> None:
        self._bars = bars
        self._bar = bars.add(name, total, unit)

    def advance(self, count: int) -> None:
        self._bars.advance(self._bar, count)

    def expect(self, total: int) -> None:
        self._bars.expect(self._bar, total)

    def end(self) -> None:
        self._bars.remove(self._bar)


class _Lines(Task):
    def __init__(self, name: str, total: int | None, unit: str | None) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._lock = threading.Lock()
        self._begun = self._told = time.monotonic()
        self._done = 0

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._told < _LINE_SECONDS:
                return
            self._told = now
            line = self._line(now - self._begun)
        click.echo(line, err=True)

    def expect(self, total: int) -> None:
        self._total = total

    def _line(self, seconds: float) -> str:
        rate = self._done / seconds
        line = f"{self._name}: {self._amount(self._done)}"
        if self._total:
            line += f" of {self._amount(self._total)} ({100 * self._done // self._total} %)"
        line += f", {self._amount(int(rate))}/s"
        if self._total and rate > 0:
            line += f", {max(0, self._total - self._done) / rate:.0f} s left"
        return line

    def _amount(self, count: int) -> str:
        return size_text(count) if self._unit is None else f"{count:,} {self._unit}"
