"""`bentofs verify`, and `sha256sum -c SHA256SUMS` in a new mount, against the latter where the archives lie ready.

The model's files and the archives that lie ready are in the page cache. A new mount has no sums: reading SHA256SUMS
computes them, and `sha256sum` reads each archive behind that.
"""

import os
import tempfile
from collections.abc import Callable

from . import samples
from .commands import run, say, seconds
from .report import Row
from .session import Session

MB = 1_000_000
SMALL_FILE = 38_000  # bytes
KINDS = {"weights": 300 * MB, "text": 150 * MB, "small files": 2000 * SMALL_FILE}
PEER = "vs sha256sum of each archive lying ready"
WHATS = {
    "sums": "first read of SHA256SUMS",
    "check": "sha256sum -c SHA256SUMS in a new mount",
    "again": "the same once the sums are known",
    "verify": "bentofs verify, which records the model",
}
MOST = 1.2  # of the peer's time


def _name(what: str, kind: str) -> str:
    return f"checksums: {WHATS[what]}, {kind}, {PEER}"


def measure(session: Session) -> list[Row]:
    rows = []
    for kind, size in KINDS.items():
        wanted = [what for what in WHATS if session.wanted(_name(what, kind))]
        if wanted:
            rows += _measure_kind(session, kind, size // 10 if session.quick else size, wanted)
    return rows


def _measure_kind(session: Session, kind: str, size: int, wanted: list[str]) -> list[Row]:
    session.need_disk(size * 6)
    session.need_memory(size * 10)  # the model, four archives that lie ready, the pages of the mount
    say(f"checksums: making a model of {size / MB:.0f} MB of {kind}")
    home = session.folder(f"checking-{kind.replace(' ', '-')}")
    store, ready = os.path.join(home, "models"), os.path.join(home, "ready")
    os.mkdir(ready)
    model = kind.split()[0]
    make: dict[str, Callable[[], None]] = {
        "weights": lambda: samples.float_weights(store, model, size, 4),
        "text": lambda: samples.text(store, model, size),
        "small": lambda: samples.json_files(store, model, size // SMALL_FILE, SMALL_FILE),
    }
    make[model]()
    limit = session.read_limit(size * 4)
    with session.launch.ours(store) as daemon:
        folder = os.path.dirname(samples.archive_path(daemon.mountpoint, model, "tar"))
        for name in os.listdir(folder):
            if name == "SHA256SUMS" or (name.startswith(f"{model}-") and not name.endswith(".sha256")):
                run(["cp", os.path.join(folder, name), ready], limit)
    run(["sync", "-f", session.work], 600)
    found: dict[str, list[float]] = {what: [] for what in ("peer", *WHATS)}
    for turn in range(session.rounds):
        for who in ("ours", "peer") if turn % 2 else ("peer", "ours"):
            if who == "peer":
                found["peer"].append(_check(ready, limit))
            else:
                _measure_ours(session, store, model, limit, found)
    return [
        row
        for what in wanted
        for row in session.keep(Row(_name(what, kind), "s", found[what], found["peer"], target=MOST, at_most=True))
    ]


def _measure_ours(session: Session, store: str, model: str, limit: float, found: dict[str, list[float]]) -> None:
    with tempfile.TemporaryDirectory(dir=session.work) as cache:
        for which in ("check", "again"):
            with session.launch.ours(store, cache) as daemon:
                folder = os.path.dirname(samples.archive_path(daemon.mountpoint, model, "tar"))
                sums = seconds(["cat", os.path.join(folder, "SHA256SUMS")], limit)
                found[which].append(sums + _check(folder, limit))
                if which == "check":
                    found["sums"].append(sums)
    with session.launch.empty_environment() as empty:
        argv = session.launch.bentofs("verify", "--store", store)
        found["verify"].append(seconds(argv, limit, env={**os.environ, **empty}))


def _check(folder: str, limit: float) -> float:
    """Return the seconds of `sha256sum -c SHA256SUMS`."""
    return seconds(["env", "-C", folder, "sha256sum", "-c", "--strict", "SHA256SUMS"], limit)
