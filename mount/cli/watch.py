"""The live screen of `bentofs status --watch`."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bentofs.mount.daemon.look import MountReport, MountState
from bentofs.store.util.display import printable

_INTERVAL = 1.0  # seconds
_PROBLEMS = 8  # shown, of all mounts
_COLUMNS = ("Mountpoint", "State", "Pid", "Models", "Reads/s", "Bytes/s", "Read", "Imports", "Memory", "Problems")
_LEFT = 2  # columns that are aligned to the left

_Reading = tuple[float, int, int]  # time, reads, bytes


def watch_mounts(look: Callable[[], Sequence[MountReport]]) -> NoReturn:
    """Show the mounts until interrupted. No thread draws the screen, since `look` forks."""
    before: dict[str, _Reading] = {}
    # Ctrl-C counts between two looks only. Python drops a KeyboardInterrupt that it raises where it forks.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with Live(console=Console(highlight=False, markup=False, emoji=False), screen=True, auto_refresh=False) as live:
        while True:
            reports = look()
            live.update(_screen(reports, before), refresh=True)
            if signal.sigtimedwait({signal.SIGINT}, _INTERVAL) is not None:
                raise KeyboardInterrupt


def _screen(reports: Sequence[MountReport], before: dict[str, _Reading]) -> Group:
    """Return the screen. `before`: what was read when the last screen was made; it is changed to what is read now."""
    table = Table(box=None, pad_edge=False, expand=True)
    for number, heading in enumerate(_COLUMNS):
        table.add_column(heading, justify="left" if number < _LEFT else "right", no_wrap=number > 0)
    problems: list[tuple[str, str]] = []
    for report in reports:
        table.add_row(*_cells(report, before))
        for problem in report.status.get("problems", {}).get("last", []):
            line = f"{problem['time'][:19]} {problem['level']} {printable(report.mount.path)}: "
            problems.append((problem["time"], line + printable(str(problem["message"]))))
    newest = [Text(line, overflow="ellipsis", no_wrap=True) for _, line in sorted(problems)[-_PROBLEMS:]]
    footer = Text("no mounts" if not reports else "Ctrl-C ends this", style="dim")
    return Group(table, Text(), *newest, footer)


def _cells(report: MountReport, before: dict[str, _Reading]) -> list[str]:
    path, told = report.mount.path, report.status
    state, pid = report.state.value, str(report.pid or "")
    if report.state is not MountState.SERVING:
        before.pop(path, None)
        return [printable(path), state, pid, *[""] * (len(_COLUMNS) - 3)]
    totals: Mapping[str, Any] = told["reads"]
    now = time.monotonic()
    reads = sum(total["reads"] for total in totals.values())
    size = sum(total["bytes"] for total in totals.values())
    last = before.get(path, (now, reads, size))
    before[path] = now, reads, size
    seconds = max(now - last[0], 0.001)
    imports = told["imports"]
    running = "" if imports is None else f"{imports['running']} running, {sum(imports['ended'].values())} ended"
    problems = told["problems"]
    return [
        printable(path),
        state,
        pid,
        str("" if told["models"] is None else told["models"]),
        f"{max(0, reads - last[1]) / seconds:.0f}",
        decimal(int(max(0, size - last[2]) / seconds)),
        decimal(size),
        running,
        decimal(told["process"]["resident_bytes"]),
        str(problems["warnings"] + problems["errors"]),
    ]
