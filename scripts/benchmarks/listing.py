"""Listing: many models with `ls`, and the time until a mount of very many answers."""

import os
import random
import time
from contextlib import AbstractContextManager

from . import samples
from .commands import run, seconds
from .mounts import Daemon
from .report import Row
from .session import Session

LIMIT = 600.0
NAMES = 10_000
SMALL_NAMES, SMALL_VERSIONS = 1000, 100
KNOWN, KNOWN_FILES = 60, 1500
ENTRIES = ("-mindepth", "2", "-maxdepth", "2", "-type", "d", "-exec", "ls", "-l", "{}", "+")  # of each version
RATIO = 0.8
MOST_SECONDS = 1.0


def measure(session: Session) -> list[Row]:
    return [*_recursive(session), *_known(session), *_names(session), *_ready(session)]


def _recursive(session: Session) -> list[Row]:
    """Measure `ls -lR` against the pass-through of an equal tree: the same names, every file empty. The first `ls` with
    an index measures the sizes of compressed archives."""
    what = f"ls -lR models/, {session.models:,} models"
    ways = {
        f"{what}, --compression never, vs pass-through": RATIO,
        f"{what}, first, vs pass-through": None,
        f"{what}, after that, vs pass-through": RATIO,
    }
    beside = f"{what}, after that, vs bindfs"
    if not any(session.wanted(name) for name in (*ways, beside)):
        return []
    store = session.folder("listing-store")
    dice = random.Random(1)
    for number in range(session.models):
        write_model(store, f"model-{number}", "v1", dice.randint(4, 99))
        samples.finish(store, f"model-{number}")
    equal = session.folder("listing-equal")
    with session.launch.ours(store, options=["--compression", "never"]) as daemon:
        _copy_names(os.path.join(daemon.mountpoint, "models"), os.path.join(equal, "models"))

    def look(mounted: AbstractContextManager[Daemon]) -> float:
        with mounted as daemon:
            return seconds(["ls", "-lR", os.path.join(daemon.mountpoint, "models")], LIMIT)

    never, first, second = ours = [list[float]() for _ in ways]
    peer, bindfs = [], []
    for turn in range(session.rounds):
        cache = session.folder(f"listing-cache-{turn}")
        if session.wanted(beside):
            bindfs.append(look(session.launch.bindfs(equal)))
        if turn % 2:
            peer.append(look(session.launch.pass_through(equal)))
        never.append(look(session.launch.ours(store, options=["--compression", "never"])))
        first.append(look(session.launch.ours(store, cache)))
        second.append(look(session.launch.ours(store, cache)))
        if not turn % 2:
            peer.append(look(session.launch.pass_through(equal)))
    rows = []
    for (name, target), times in zip(ways.items(), ours, strict=True):
        rows += session.keep(Row(name, "s", times, peer, target=target, at_most=True))
    return [*rows, *(session.keep(Row(beside, "s", second, bindfs, at_most=True)) if bindfs else ())]


def _known(session: Session) -> list[Row]:
    """Measure `ls -l` of models that an earlier mount measured, each time by a new one, against `--compression
    never`."""
    rows = []
    for count, files in ((KNOWN, KNOWN_FILES), (session.models, 2)):
        name = f"ls -l of {count:,} models of {files:,} files, measured before, vs --compression never"
        if not session.wanted(name):
            continue
        store, cache = session.folder(f"known-store-{files}"), session.folder(f"known-cache-{files}")
        for number in range(count):
            if files > 2:
                samples.json_files(store, f"model-{number}", files, 4000)
            else:
                write_model(store, f"model-{number}", "v1", files - 1)  # beside its model.yaml
                samples.finish(store, f"model-{number}")

        def look(*options: str, store: str = store, cache: str = cache) -> float:
            with session.launch.ours(store, cache, options) as daemon:
                return seconds(["find", os.path.join(daemon.mountpoint, "models"), *ENTRIES], LIMIT)

        look()
        times: dict[str, list[float]] = {"auto": [], "never": []}
        for turn in range(session.rounds):
            for compression in ("auto", "never") if turn % 2 else ("never", "auto"):
                times[compression].append(look("--compression", compression))
        rows += session.keep(Row(name, "s", times["auto"], times["never"], target=1.3, at_most=True))
    return rows


def _names(session: Session) -> list[Row]:
    name = f"ls -l models/, {NAMES:,} names"
    if not session.wanted(name):
        return []
    store = session.folder("names-store")
    for number in range(NAMES):
        write_model(store, f"model-{number}", "v1", 0)
        samples.finish(store, f"model-{number}")
    times = []
    for _ in range(session.rounds):
        with session.launch.ours(store) as daemon:
            times.append(seconds(["ls", "-l", os.path.join(daemon.mountpoint, "models")], LIMIT))
    return session.keep(Row(name, "s", times, target=MOST_SECONDS, at_most=True))


def _ready(session: Session) -> list[Row]:
    name = f"mount ready, {SMALL_NAMES * SMALL_VERSIONS:,} models"
    if not session.wanted(name):
        return []
    store = session.folder("ready-store")
    for number in range(SMALL_NAMES):
        for version in range(SMALL_VERSIONS):
            write_model(store, f"model-{number}", f"v{version}", 0)
    times = []
    for _ in range(session.rounds):
        start = time.perf_counter()
        with session.launch.ours(store):
            times.append(time.perf_counter() - start)
    return session.keep(Row(name, "s", times, target=MOST_SECONDS, at_most=True))


def write_model(store: str, name: str, version: str, files: int) -> None:
    """Write a model with so many small files beside its model.yaml, in folders of 20."""
    folder = os.path.join(store, name, version)
    os.makedirs(folder)
    with open(os.path.join(folder, "model.yaml"), "w") as file:
        file.write(samples.MODEL_YAML.format(name=name, version=version, created=samples.CREATED))
    for number in range(files):
        below = os.path.join(folder, f"part-{number // 20}")
        os.makedirs(below, exist_ok=True)
        with open(os.path.join(below, f"{number}.bin"), "w") as file:
            file.write(str(number))
    os.utime(folder, (1_700_000_000, 1_700_000_000))


def _copy_names(source: str, target: str) -> None:
    """Copy a tree with empty files."""
    found = run(["find", source, "-printf", r"%y %P\t%l\0"], LIMIT)
    for entry in found.split("\0")[:-1]:
        kind, _, rest = entry.partition(" ")
        path, _, link = rest.partition("\t")
        path = os.path.join(target, path)
        if kind == "d":
            os.makedirs(path, exist_ok=True)
        elif kind == "l":
            os.symlink(link, path)
        else:
            with open(path, "wb"):
                pass
