"""Rows 1: throughput of reading whole archives, against the same bytes lying ready on disk behind another mount."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from . import samples
from .commands import BenchError, drop_pages, run, say, seconds
from .mounts import Daemon
from .report import Row
from .session import Session

FORMATS = ("bentomodel", "tar", "zip", "tar.gz")
READS = ("first", "second")
PEERS = ("pass-through", "bindfs")
MEMBERS = 200
# A first read of a zip must compute every file's CRC-32 before it can send the file's header.
TARGETS = {
    ("bentomodel", "first"): 1.1,
    ("bentomodel", "second"): 1.1,
    ("tar", "first"): 1.1,
    ("tar", "second"): 1.1,
    ("zip", "first"): 0.9,
    ("zip", "second"): 1.1,
}


def _name(suffix: str, tool: str, which: str, peer: str) -> str:
    return f".{suffix} {tool}, {which} read, vs {peer}"


def measure(session: Session) -> list[Row]:
    memory = session.memory_folder(session.size)
    copy = os.path.join(memory, "copy") if memory else os.devnull
    tools: dict[str, Callable[[str], list[str]]] = {
        "cat": lambda path: ["cat", path],
        "cp": lambda path: ["cp", path, copy],
        "dd": lambda path: ["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"],
    }
    wanted = [
        (suffix, tool)
        for suffix in FORMATS
        for tool in tools
        if any(session.wanted(_name(suffix, tool, which, peer)) for which in READS for peer in PEERS)
    ]
    if not wanted:
        return []
    session.need_memory(session.size * 4)  # the model, its archive, the pages of the mount, cp's copy
    session.need_disk(session.size * (1 + len({suffix for suffix, _ in wanted})))
    say(f"reading: making a model of {session.size >> 20} MiB in {MEMBERS} members")
    store, ready = session.folder("reading-store"), session.folder("ready")
    samples.incompressible(store, "random", session.size, MEMBERS)
    for suffix in dict.fromkeys(suffix for suffix, _ in wanted):
        _lay_ready(session, store, ready, suffix)
    run(["sync", "-f", session.work], 600)
    peers: dict[str, Callable[[], AbstractContextManager[Daemon]]] = {
        "ours": lambda: session.launch.ours(store),
        "pass-through": lambda: session.launch.pass_through(ready),
        "bindfs": lambda: session.launch.bindfs(ready),
    }
    rows = []
    for suffix, tool in wanted:
        speeds: dict[tuple[str, str], list[float]] = {}
        file_name = f"random-{samples.VERSION}.{suffix}"
        size = os.stat(os.path.join(ready, file_name)).st_size
        _warm(session, store, os.path.join(ready, file_name))
        for turn in range(session.rounds):
            order = list(peers)[turn % 3 :] + list(peers)[: turn % 3]
            for peer in order:
                with peers[peer]() as daemon:
                    path = os.path.join(daemon.mountpoint, file_name)
                    if peer == "ours":
                        path = samples.archive_path(daemon.mountpoint, "random", suffix)
                    for which in READS:
                        speed = throughput(session, daemon, size, tools[tool](path))
                        speeds.setdefault((peer, which), []).append(speed)
                        drop_pages(path)
                        if tool == "cp" and memory:
                            os.unlink(copy)
        for peer in PEERS:
            for which in READS:
                name = _name(suffix, tool, which, peer)
                target = TARGETS.get((suffix, which)) if peer == "pass-through" else None
                row = Row(name, "MB/s", speeds["ours", which], speeds[peer, which], target=target)
                rows += session.keep(row)
    return rows


def _lay_ready(session: Session, store: str, ready: str, suffix: str) -> None:
    """Copy an archive out of our mount for the peers, and check that a second daemon makes the same bytes."""
    copy = os.path.join(ready, f"random-{samples.VERSION}.{suffix}")
    with session.launch.ours(store) as daemon:
        run(["cp", samples.archive_path(daemon.mountpoint, "random", suffix), copy], session.read_limit(session.size))
    with session.launch.ours(store) as daemon:
        archive = samples.archive_path(daemon.mountpoint, "random", suffix)
        run(["cmp", archive, copy], session.read_limit(session.size))


def _warm(session: Session, store: str, ready: str) -> None:
    """Put the files that both sides read in the page cache."""
    limit = session.read_limit(session.size)
    run(["cat", ready], limit, stdout=os.devnull)
    run(["find", store, "-type", "f", "-exec", "cat", "{}", "+"], limit, stdout=os.devnull)


def throughput(session: Session, daemon: Daemon, size: int, argv: list[str]) -> float:
    """Return the MB/s of one read of a file of this size. Every byte must have come from the daemon."""
    before = daemon.sent()
    took = seconds(argv, session.read_limit(session.size))
    sent = daemon.sent() - before
    if sent < size:
        raise BenchError(f"`{' '.join(argv)}`: the daemon sent {sent} of {size} bytes, the kernel's cache the rest")
    return size / 1e6 / took
