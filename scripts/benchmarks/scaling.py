"""Rows 3 and 4: the figures that must not grow with a model's size: the time to a first byte or a listing, and
memory."""

import os
from collections.abc import Callable

from . import samples
from .commands import BenchError, first_bytes, run, say, seconds
from .report import Row
from .session import Session

GIB = 1 << 30
HUGE = 100 * GIB
SMALL = 1 << 20
MEMBERS = 4
LIMIT = 60.0
# A tar.gz or zip of the huge model may first have to read all of it, once.
MEASURE_LIMIT = 3600.0


def _probes() -> dict[str, tuple[str, Callable[[str], float]]]:
    """Return row -> (format, the function that returns its seconds on one archive)."""
    probes: dict[str, tuple[str, Callable[[str], float]]] = {}
    for suffix in ("bentomodel", "tar", "zip", "tar.gz"):
        probes[f".{suffix} first byte"] = (suffix, lambda path: first_bytes(path, 1, LIMIT))
        probes[f".{suffix} first 4 KiB"] = (suffix, lambda path: first_bytes(path, 4096, LIMIT))
    probes["unzip -l"] = ("zip", lambda path: seconds(["unzip", "-l", path], LIMIT))
    probes["tar tf .tar"] = ("tar", lambda path: seconds(["tar", "tf", path], LIMIT))
    return {f"{name}, 100 GiB vs 1 MiB": probe for name, probe in probes.items()}


def measure_times(session: Session) -> list[Row]:
    """Measure each probe by a new daemon, large and small model in turn. Measurements are in the index beforehand."""
    wanted = {name: probe for name, probe in _probes().items() if session.wanted(name)}
    if not wanted:
        return []
    store = _sparse_store(session, "scaling-store")
    cache = session.folder("scaling-cache")
    suffixes = {suffix for suffix, _ in wanted.values()}
    if suffixes & {"zip", "tar.gz"}:
        say("scaling: measuring the 100 GiB model once (its CRC-32s)")
        with session.launch.ours(store, cache) as daemon:
            for name in ("huge", "small"):
                run(["unzip", "-l", samples.archive_path(daemon.mountpoint, name, "zip")], MEASURE_LIMIT)
    rows = []
    for row_name, (suffix, probe) in wanted.items():
        times: dict[str, list[float]] = {"huge": [], "small": []}
        for turn in range(session.rounds):
            for name in ("huge", "small") if turn % 2 else ("small", "huge"):
                with session.launch.ours(store, cache) as daemon:
                    run(["ls", os.path.join(daemon.mountpoint, "models")], LIMIT)
                    times[name].append(probe(samples.archive_path(daemon.mountpoint, name, suffix)))
        rows += session.keep(Row(row_name, "s", times["huge"], times["small"], target=2, at_most=True))
    return rows


def measure_memory(session: Session) -> list[Row]:
    """Measure the daemon's peak resident size after an archive of 100 GiB went through it, with an index that is empty
    at the start."""
    streamed = 4 * GIB if session.quick else HUGE
    names = {
        suffix: f"peak memory, {streamed // GIB} GiB of a 100 GiB .{suffix}"
        for suffix in ("bentomodel", "tar.gz", "tar")
    }
    wanted = {suffix: name for suffix, name in names.items() if session.wanted(name)}
    if not wanted:
        return []
    store = _sparse_store(session, "memory-store")
    rows = []
    for suffix, name in wanted.items():
        say(f"memory: streaming {streamed // GIB} GiB of .{suffix}")
        with session.launch.ours(store) as daemon:
            path = samples.archive_path(daemon.mountpoint, "huge", suffix)
            command = ["head", "-c", str(streamed), path] if session.quick else ["cat", path]
            run(command, session.read_limit(streamed), stdout=os.devnull)
            if daemon.sent() < streamed:
                raise BenchError(f"the daemon sent {daemon.sent()} bytes of the .{suffix}, not {streamed}")
            rows += session.keep(Row(name, "MB", [daemon.peak_memory() / 1e6], target=120, at_most=True))
    return rows


def _sparse_store(session: Session, name: str) -> str:
    """Make a huge and a small model with the same number of files; in memory where possible, so that reading holes
    costs nothing."""
    store = session.memory_folder(SMALL) or session.folder(name)
    samples.sparse(store, "huge", HUGE, MEMBERS)
    samples.sparse(store, "small", SMALL, MEMBERS)
    return store
