"""Rows against another build of bentofs (`--against DIR`, a checkout of it), served by turns in the same run.

Both builds run in this checkout's environment. bindfs stands beside them in the rows of reads.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from . import listing, samples
from .commands import drop_pages, run, seconds
from .mounts import Daemon, Launcher
from .reading import MEMBERS, throughput
from .report import Row
from .session import Session

LIMIT = 900.0
OTHER = "vs other build"
READERS = 4  # of one file, at once
HUGE = 200_000  # files of one model
# Maps a file as `mmap` does in a program that loads weights, and touches each page.
_MAP = """
import mmap, sys
for path in sys.argv[1:]:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        for at in range(0, len(content), mmap.PAGESIZE):
            content[at]
"""
_READERS = " & ".join(['cat "$0" >/dev/null'] * READERS) + " & wait"


def measure(session: Session) -> list[Row]:
    """Return the rows; none without another build."""
    if session.other is None:
        return []
    return [
        *_listing(session, session.other),
        *_huge(session, session.other),
        *_reading(session, session.other),
        *_incoming(session, session.other),
    ]


def _by_turns(
    session: Session, sides: dict[str, Callable[[], AbstractContextManager[Daemon]]]
) -> Iterator[tuple[str, Daemon]]:
    """Give each side a new mount in each round. The order changes, so that no side is always the first."""
    for turn in range(session.rounds):
        order = list(sides)
        for side in order[turn % len(order) :] + order[: turn % len(order)]:
            with sides[side]() as daemon:
                yield side, daemon


def _listing(session: Session, other: Launcher) -> list[Row]:
    """Measure listings by a new mount whose index an earlier mount has filled."""
    models = f"{session.models:,} models"
    rows = {
        f"ls -l models/, {models}, measured before, {OTHER}": (("-l",), (), 0.5),
        f"ls -lR models/, {models}, measured before, {OTHER}": (("-lR",), (), 0.4),
        f"ls -lR models/, {models}, --compression never, {OTHER}": (("-lR",), ("--compression", "never"), 0.5),
    }
    commands = f"bentofs list, {models}, {OTHER}"
    if not any(session.wanted(name) for name in (*rows, commands)):
        return []
    store = session.folder("builds-listing-store")
    dice = random.Random(1)
    for number in range(session.models):
        listing.write_model(store, f"model-{number}", "v1", dice.randint(4, 99))
        samples.finish(store, f"model-{number}")
    launchers = {"ours": session.launch, "other": other}
    caches = {side: session.folder(f"builds-listing-{side}") for side in launchers}
    if any(session.wanted(name) for name, (_, mount_options, _) in rows.items() if not mount_options):
        for side, launch in launchers.items():  # fills the index
            with launch.ours(store, caches[side]) as daemon:
                run(["ls", "-lR", os.path.join(daemon.mountpoint, "models")], LIMIT, stdout=os.devnull)
    kept = []
    for name, (options, mount_options, target) in rows.items():
        if not session.wanted(name):
            continue
        sides = {
            side: lambda launch=launch, side=side, more=mount_options: launch.ours(store, caches[side], more)
            for side, launch in launchers.items()
        }
        times: dict[str, list[float]] = {side: [] for side in sides}
        for side, daemon in _by_turns(session, sides):
            times[side].append(seconds(["ls", *options, os.path.join(daemon.mountpoint, "models")], LIMIT))
        kept += session.keep(Row(name, "s", times["ours"], times["other"], target=target, at_most=True))
    if session.wanted(commands):
        times = {side: [] for side in launchers}
        for _ in range(session.rounds):
            for side, launch in launchers.items():
                env = {**os.environ, **launch.environment(caches[side])}
                argv = ["env", "-C", launch.root, *launch.bentofs("list", "--store", store)]
                times[side].append(seconds(argv, LIMIT, env=env))
        kept += session.keep(Row(commands, "s", times["ours"], times["other"], at_most=True))
    return kept


def _huge(session: Session, other: Launcher) -> list[Row]:
    """Measure the daemon's processor time for the first look at one model of very many files."""
    name = f"ls -l of a model of {HUGE:,} files, first look, {OTHER}"
    if not session.wanted(name):
        return []
    store = session.folder("builds-huge-store")
    samples.json_files(store, "huge", HUGE, 10)
    sides: dict[str, Callable[[], AbstractContextManager[Daemon]]] = {
        "ours": lambda: session.launch.ours(store),
        "other": lambda: other.ours(store),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for side, daemon in _by_turns(session, sides):
        before = daemon.processor_seconds()
        run(["ls", "-l", os.path.join(daemon.mountpoint, "models", "huge", samples.VERSION)], LIMIT)
        times[side].append(daemon.processor_seconds() - before)
    return session.keep(Row(name, "s of processor time", times["ours"], times["other"], target=0.25, at_most=True))


def _reading(session: Session, other: Launcher) -> list[Row]:
    """Measure first reads of archives and of a model's own files."""
    memory = session.memory_folder(session.size)
    copy = os.path.join(memory, "copy") if memory else os.devnull
    into = memory or session.work
    tools: dict[str, tuple[Callable[[str], list[str]], float]] = {
        "cat": (lambda path: ["cat", path], 1.25),
        "dd": (lambda path: ["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], 1.25),
        "cp": (lambda path: ["cp", path, copy], 1.15),
        "rsync": (lambda path: ["rsync", "--whole-file", path, os.path.join(into, "copy")], 1.1),
        "tar x": (lambda path: ["tar", "-x", "-O", "-f", path], 1.0),
        f"{READERS} readers": (lambda path: ["sh", "-c", _READERS, path], 1.0),
    }
    reads = [(suffix, tool) for suffix in ("tar", "bentomodel") for tool in tools]
    reads = [(suffix, tool) for suffix, tool in reads if session.wanted(_read_name(suffix, tool))]
    whole = {
        "cat": lambda paths: ["cat", *paths],
        "cp": lambda paths: ["cp", *paths, os.path.join(into, "copies")],
        "mmap": lambda paths: [session.launch.python, "-c", _MAP, *paths],
    }
    files = [tool for tool in whole if session.wanted(_files_name(tool))]
    if not reads and not files:
        return []
    session.need_memory(session.size * 4)
    session.need_disk(session.size)
    store, ready = session.folder("builds-store"), session.folder("builds-ready")
    samples.incompressible(store, "random", session.size, MEMBERS)
    run(["sync", "-f", session.work], 600)
    sides: dict[str, Callable[[], AbstractContextManager[Daemon]]] = {
        "ours": lambda: session.launch.ours(store),
        "other": lambda: other.ours(store),
    }
    kept = []
    for suffix, tool in reads:
        argv, target = tools[tool]
        file_name = f"random-{samples.VERSION}.{suffix}"
        with session.launch.ours(store) as daemon:
            run(
                ["cp", samples.archive_path(daemon.mountpoint, "random", suffix), os.path.join(ready, file_name)], LIMIT
            )
        with_bindfs = {**sides, "bindfs": lambda: session.launch.bindfs(ready)}
        speeds: dict[str, list[float]] = {side: [] for side in with_bindfs}
        size = os.stat(os.path.join(ready, file_name)).st_size
        _warm(session, store, ready)
        for side, daemon in _by_turns(session, with_bindfs):
            path = samples.archive_path(daemon.mountpoint, "random", suffix)
            path = os.path.join(daemon.mountpoint, file_name) if side == "bindfs" else path
            if tool == "tar x" and suffix == "bentomodel":
                argv = lambda path: ["tar", "-x", "-O", "-J", "-f", path]  # noqa: E731
            speeds[side].append(throughput(session, daemon, size, argv(path)))
            drop_pages(path)
            for left in (copy, os.path.join(into, "copy")):
                if os.path.isfile(left):
                    os.unlink(left)
        name = _read_name(suffix, tool)
        kept += session.keep(Row(name, "MB/s", speeds["ours"], speeds["other"], target=target))
        kept += session.keep(Row(name.replace(OTHER, "vs bindfs"), "MB/s", speeds["ours"], speeds["bindfs"]))
        os.unlink(os.path.join(ready, file_name))
    kept += _files(session, store, sides, {tool: whole[tool] for tool in files}, os.path.join(into, "copies"))
    return kept


def _files(
    session: Session,
    store: str,
    sides: dict[str, Callable[[], AbstractContextManager[Daemon]]],
    tools: dict[str, Callable[[list[str]], list[str]]],
    copies: str,
) -> list[Row]:
    """Measure reads of `files/`, beside those of the store's own files."""
    kept = []
    plain = os.path.join(store, "random", samples.VERSION)
    for tool, argv in tools.items():
        _warm(session, store)
        speeds: dict[str, list[float]] = {side: [] for side in (*sides, "plain")}

        def read(top: str, argv: Callable[[list[str]], list[str]] = argv) -> float:
            os.makedirs(copies)
            found = run(["find", top, "-name", "*.bin"], LIMIT).split()
            took = seconds(argv(found), LIMIT)
            shutil.rmtree(copies)
            return session.size / 1e6 / took

        for side, daemon in _by_turns(session, sides):
            files = os.path.join(daemon.mountpoint, "models", "random", samples.VERSION, "files")
            speeds[side].append(read(files))
            if side == "ours":
                speeds["plain"].append(read(plain))
        name = _files_name(tool)
        kept += session.keep(Row(name, "MB/s", speeds["ours"], speeds["other"], target=3))
        beside = name.replace(OTHER, "vs the files themselves")
        target = 1 / 1.3 if tool == "cat" else None
        kept += session.keep(Row(beside, "MB/s", speeds["ours"], speeds["plain"], target=target))
    return kept


def _incoming(session: Session, other: Launcher) -> list[Row]:
    """Measure `cp` into `incoming/`: its throughput, and the daemon's processor time."""
    name, processor = f"cp of a .tar into incoming/, {OTHER}", f"processor time of that, {OTHER}"
    if not session.wanted(name) and not session.wanted(processor):
        return []
    session.need_disk(session.size * 4)
    store, ready = session.folder("builds-incoming-store"), session.folder("builds-incoming-ready")
    samples.incompressible(store, "random", session.size, MEMBERS)
    archive = os.path.join(ready, "random.tar")
    with session.launch.ours(store) as daemon:
        run(["cp", samples.archive_path(daemon.mountpoint, "random", "tar"), archive], LIMIT)
    shutil.rmtree(store)

    @contextmanager
    def mounted(launch: Launcher) -> Iterator[Daemon]:
        os.mkdir(store)
        run(["sync", "-f", session.work], 600)
        with launch.ours(store) as daemon:
            yield daemon
        shutil.rmtree(store)
        shutil.rmtree(f"{store}.bentofs", ignore_errors=True)

    launchers = {"ours": session.launch, "other": other}
    sides = {side: lambda launch=launch: mounted(launch) for side, launch in launchers.items()}
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    cores: dict[str, list[float]] = {side: [] for side in sides}
    size = os.stat(archive).st_size
    for side, daemon in _by_turns(session, sides):
        before = daemon.processor_seconds()
        took = seconds(["cp", archive, os.path.join(daemon.mountpoint, "incoming", "random.tar")], LIMIT)
        speeds[side].append(size / 1e6 / took)
        cores[side].append((daemon.processor_seconds() - before) * (1 << 30) / size)
    return [
        *session.keep(Row(name, "MB/s", speeds["ours"], speeds["other"], target=1.15)),
        *session.keep(Row(processor, "s", cores["ours"], cores["other"], target=1.05, at_most=True)),
    ]


def _read_name(suffix: str, tool: str) -> str:
    return f".{suffix} {tool}, {OTHER}"


def _files_name(tool: str) -> str:
    return f"files/ {tool}, {OTHER}"


def _warm(session: Session, *folders: str) -> None:
    """Put the files that all sides read in the page cache."""
    for folder in folders:
        run(
            ["find", folder, "-type", "f", "-exec", "cat", "{}", "+"],
            session.read_limit(session.size),
            stdout=os.devnull,
        )
