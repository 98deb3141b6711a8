"""The command line of `scripts/bench`."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from types import FrameType

from . import archiving, builds, checking, compressing, exporting, listing, reading, remote, samples, scaling, serving
from .commands import BenchError, say
from .mounts import ENDING, Launcher
from .report import Row, load_rows, machine, require_plot, save_json, save_plot, table
from .session import Session

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MB = 1_000_000
GROUPS = (
    reading.measure,
    exporting.measure_against_tar,
    exporting.measure,
    compressing.measure,
    scaling.measure_times,
    scaling.measure_memory,
    listing.measure,
    remote.measure,
    archiving.measure,
    checking.measure,
    serving.measure,
    builds.measure,
)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure bentofs against its peers.")
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows whose name has TEXT in it")
    parser.add_argument("--rounds", type=int, metavar="N", help="medians of N (default 7; --quick 3)")
    parser.add_argument("--size", type=int, metavar="MIB", help="the model that is read (default 1024; --quick 256)")
    parser.add_argument("--export-size", type=int, metavar="MB", help="the exported model (default 300; --quick 20)")
    parser.add_argument("--quick", action="store_true", help="smaller, fewer, and 4 of the 100 GiB for memory")
    parser.add_argument("--full", action="store_true", help="list 10,000 models instead of 2,000 (--quick: 200)")
    parser.add_argument("--against", metavar="DIR", help="measure another build's checkout, too: rows `vs other build`")
    parser.add_argument("--plot", metavar="FILE", help="draw how far each row is from its target")
    parser.add_argument("--json", metavar="FILE", help="write all samples, after each group of rows")
    parser.add_argument(
        "--saved",
        metavar="FILE",
        action="append",
        help="measure nothing, show and draw what --json wrote; may be repeated",
    )
    parser.add_argument("--work", metavar="DIR", help="where the models are made (default: the temporary folder)")
    parser.add_argument("--python", default=f"{ROOT}/.venv/bin/python", help="runs bentofs and the pass-through")
    parser.add_argument("--bentoml-python", default=f"{ROOT}/.venv-bentoml-1.4/bin/python", help="runs BentoML")
    args = parser.parse_args()
    args.rounds = max(1, args.rounds or (3 if args.quick else 7))
    args.size = max(1, args.size or (256 if args.quick else 1024))
    args.export_size = max(1, args.export_size or (20 if args.quick else 300))
    args.models = 10_000 if args.full else 200 if args.quick else 2000
    return args


def check(args: argparse.Namespace) -> None:
    """Check for missing tools before anything is measured."""
    exports = (
        compressing.needs_bentoml(args.rows)
        or exporting.needs_bentoml(args.rows, args.export_size * MB)
        or remote.needs_bentoml(args.rows)
    )
    for python in [args.python] + ([args.bentoml_python] if exports else []):
        if not os.access(python, os.X_OK):
            raise BenchError(f"{python} is missing: run ./scripts/test or ./scripts/start first")
    for tool in ("bindfs", "unzip", "tar", "cmp", "pigz", "zip"):
        if not shutil.which(tool):
            raise BenchError(f"{tool} is missing: apt-get install bindfs unzip zip tar diffutils pigz")
    if args.against:
        args.against = os.path.abspath(args.against)
        if not os.path.isdir(os.path.join(args.against, "mount")):
            raise BenchError(f"{args.against} is no checkout of bentofs")
    remote.check(args.rows, args.python, args.bentoml_python, args.models, args.quick, archiving.row_names())


def end(number: int, _frame: FrameType | None) -> None:
    """End the run on a signal by an exception, so that everything is unmounted and removed on the way out."""
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)  # the clean-up is bounded; a second Ctrl-C would only leave mounts behind
    say("ending: unmounting and removing what was made")
    raise SystemExit(128 + number)


def measure(args: argparse.Namespace, computer: str) -> list[Row]:
    """Return all rows. Those of each group are saved at once, so that a run that fails keeps what it measured."""
    rows: list[Row] = []
    with ExitStack() as cleanup:
        work = tempfile.mkdtemp(prefix="bentofs-bench-", dir=args.work)
        cleanup.callback(shutil.rmtree, work, ignore_errors=True)
        mountpoints = tempfile.mkdtemp(prefix="bentofs-bench-mounts-")
        cleanup.callback(_remove_empty, mountpoints)
        launch = Launcher(ROOT, args.python, work, mountpoints)
        session = Session(
            launch,
            args.bentoml_python,
            work,
            cleanup,
            rows=args.rows,
            rounds=args.rounds,
            size=args.size * samples.MIB,
            export_size=args.export_size * MB,
            models=args.models,
            quick=args.quick,
            other=Launcher(args.against, args.python, work, mountpoints) if args.against else None,
        )
        for group in GROUPS:
            rows += group(session)
            if args.json:
                save_json(args.json, rows, {"machine": computer})
    return rows


def saved(paths: list[str]) -> tuple[list[Row], str]:
    """Return the rows of all files. The last file wins where two have the same row."""
    rows: dict[str, Row] = {}
    for path in paths:
        found, computer = load_rows(path)
        rows |= {row.name: row for row in found}
    return list(rows.values()), computer


def _remove_empty(folder: str) -> None:
    with suppress(OSError):  # a mount that cannot be ended is left alone
        os.rmdir(folder)


def fail(sentence: str) -> int:
    say(f"bench: {sentence}")
    return 1


def main() -> int:
    args = options()
    for ending in ENDING:
        if signal.getsignal(ending) != signal.SIG_IGN:  # ignored under nohup and in the background
            signal.signal(ending, end)
    try:
        if args.plot:
            require_plot()
        if args.saved:
            rows, computer = saved(args.saved)
        else:
            check(args)
            computer = machine()
            load = os.getloadavg()[0]
            if load > 0.5:
                say(f"bench: something else is running (load {load:.1f}); the figures will be less certain")
            rows = measure(args, computer)
        if not rows:
            return fail(f"no row has {args.rows!r} in its name")
        print(table(rows))
        print(computer)
        if args.plot:
            save_plot(args.plot, rows, computer)
    except (BenchError, OSError) as error:
        return fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
