"""Rows, the table, the machine, the picture."""

import json
import os
import platform
import statistics
import textwrap
from dataclasses import dataclass, field, fields

from .commands import BenchError

_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10)  # of the picture: times the target


@dataclass
class Row:
    """One comparison: our samples and the peer's, in one unit, and the requested ratio.

    `ratio` is "ours/peer" (throughputs, and times that must not grow) or "peer/ours" (how many times faster). A row
    without a peer is compared with its target directly.
    """

    name: str
    unit: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    ratio: str = "ours/peer"
    target: float | None = None
    at_most: bool = False

    def value(self) -> float:
        """Return the figure that is compared with the target: a ratio of medians, or our own median if there is no
        peer."""
        ours = statistics.median(self.ours)
        return self._divide(ours, statistics.median(self.peer)) if self.peer else ours

    def spread(self) -> str:
        """Return the lowest and the highest ratio of a single round. They tell how far the value can be trusted."""
        if len(self.ours) != len(self.peer):
            return ""
        ratios = [self._divide(ours, peer) for ours, peer in zip(self.ours, self.peer, strict=True)]
        return f"{min(ratios):.2f}-{max(ratios):.2f}"

    def _divide(self, ours: float, peer: float) -> float:
        return ours / peer if self.ratio == "ours/peer" else peer / ours

    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.value() < self.target if self.at_most else self.value() >= self.target

    def cells(self) -> tuple[str, ...]:
        wanted = "-" if self.target is None else f"{'<' if self.at_most else '>='} {self.target:g}"
        return (
            self.name,
            _figure(statistics.median(self.ours), self.unit),
            _figure(statistics.median(self.peer), self.unit) if self.peer else "-",
            f"{self.value():.2f}" if self.peer else "-",
            self.spread(),
            wanted if self.peer else f"{wanted} {self.unit}",
            {None: "", True: "ok", False: "MISSED"}[self.reached()],
        )


def _figure(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        return f"{value * 1000:.2f} ms"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"


def table(rows: list[Row]) -> str:
    lines = [("", "ours", "peer", "ratio", "rounds", "target", ""), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(7)]
    aligned = [
        "  ".join(
            cell.ljust(width) if column in (0, 6) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(aligned)


def machine() -> str:
    """Return a description of the computer in one line."""
    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo") as info:
        cpu = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), cpu)
    with open("/proc/meminfo") as info:
        memory = int(next(line for line in info if line.startswith("MemTotal")).split()[1]) / (1 << 20)
    return (
        f"{len(os.sched_getaffinity(0))} cores of {cpu}, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} before"
    )


def save_json(path: str, rows: list[Row], about: dict[str, str]) -> None:
    found = [{**vars(row), "value": row.value(), "reached": row.reached()} for row in rows]
    with open(path, "w") as file:
        json.dump({**about, "rows": found}, file, indent=1)


def load_rows(path: str) -> tuple[list[Row], str]:
    """Return the rows and the machine that `save_json` wrote."""
    with open(path) as file:
        saved = json.load(file)
    names = {each.name for each in fields(Row)}
    return [Row(**{name: row[name] for name in names}) for row in saved["rows"]], saved["machine"]


def require_plot() -> None:
    """Report at the start, not after an hour, that the picture cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise BenchError("--plot needs matplotlib: pip install '.[plot]' in the environment that runs this") from None


def save_plot(path: str, rows: list[Row], title: str) -> None:
    """Draw bars of how far each row is from its target: 1 is the target, longer is better."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    aimed = [(row, row.target) for row in rows if row.target is not None][::-1]
    if not aimed:
        raise BenchError("nothing to draw: no row here has a target")
    reach = [target / row.value() if row.at_most else row.value() / target for row, target in aimed]
    figure, axes = pyplot.subplots(figsize=(11, 1.5 + 0.36 * len(aimed)), layout="constrained")
    labels = [f"{row.name}: {row.cells()[3 if row.peer else 1]} ({row.cells()[5]})" for row, _ in aimed]
    names = [textwrap.fill(label, 62) for label in labels]
    colours = ["tab:green" if row.reached() else "tab:red" for row, _ in aimed]
    axes.barh(names, [value - 1 for value in reach], left=1, color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *reach) * 0.9, max(2, *reach) * 1.1)
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.set_xticks([], minor=True)
    axes.tick_params(labelsize=7)
    axes.set_ylim(-0.7, len(aimed) - 0.3)
    axes.set_xlabel("times the target: right of 1 it is reached")
    figure.suptitle(title, fontsize=8)
    figure.savefig(path, dpi=120)
