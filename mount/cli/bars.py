"""Draw progress bars on a terminal. `progress.py` loads this module, and with it rich, only where there is a terminal.

Threading: any thread.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text


class _Amount(DownloadColumn):
    """The amount that is done, and the total: bytes, or the task's unit."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        if unit is None:
            return super().render(task)
        total = "?" if task.total is None else f"{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}/{total} {unit}", style="progress.download")


class _Rate(TransferSpeedColumn):
    """The rate: bytes a second, or the task's unit a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if task.fields["unit"] is None or speed is None:
            return super().render(task)
        return Text(f"{speed:,.0f}/s", style="progress.data.speed")


class Bars:
    """Bars on standard error, one for each task that runs."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            _Amount(),
            _Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,  # it may be a file
            redirect_stderr=False,
        )

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def add(self, name: str, total: int | None, unit: str | None) -> TaskID:
        return self._progress.add_task(name, total=total, unit=unit)

    def advance(self, bar: TaskID, count: int) -> None:
        self._progress.advance(bar, count)

    def expect(self, bar: TaskID, total: int) -> None:
        self._progress.update(bar, total=total, refresh=True)

    def remove(self, bar: TaskID) -> None:
        """Remove a bar. A bar that is left is redrawn again and again."""
        self._progress.remove_task(bar)
