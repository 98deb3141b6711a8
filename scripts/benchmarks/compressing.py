"""Compressed archives: the first copy of a .tar.gz or .zip, measuring included, against the tools that make one."""

import os
import sys

from . import samples
from .commands import BenchError, drop_pages, run, seconds
from .report import Row
from .session import Session

MB = 1_000_000
SIZES = {
    "f32": 300 * MB,
    "forest": 190 * MB,
    "text": 150 * MB,
    "json 38 KB files": 76 * MB,
    "json 100 B files": 3 * MB,
    "f32 1 GiB": 1 << 30,
    "forest 560 MB": 560 * MB,
}
BRIEF = ("f32 1 GiB", "forest 560 MB", "json 100 B files")  # measured as .tar.gz only, and without random reads
FILES = {"json 38 KB files": 38_000, "json 100 B files": 100}  # bytes of each
EXPORTED = "text"
OPTIONS = ("--compression", "always")
RANDOM_READS = """
import os, random, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(descriptor).st_size
dice = random.Random(1)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
for _ in range(int(sys.argv[2])):
    os.pread(descriptor, 4096, dice.randrange(size - 4096))
"""
READS = 200


def _rows(kind: str) -> dict[str, str]:
    """Return measurement -> row name, for a kind of model."""
    rows = {
        "first": f"first cp .tar.gz, {kind} vs tar c | pigz -1",
        "size": f"size of .tar.gz, {kind} vs tar c | pigz -1",
        "second": f"second cp .tar.gz, {kind} vs tar c | pigz -1",
    }
    if kind not in BRIEF:
        rows["zip"] = f"first cp .zip, {kind} vs zip -1"
        rows["random"] = f"{READS} random 4 KiB reads of .tar.gz, {kind} vs pass-through"
    if kind == EXPORTED:
        rows["export"] = f"first cp .tar.gz, {kind} vs bentoml models export x.tar.gz"
    return rows


def needs_bentoml(rows: str) -> bool:
    """Tell whether one of the requested rows runs BentoML or scikit-learn, which is in its environment."""
    return any(
        rows.lower() in name.lower()
        for kind in SIZES
        for what, name in _rows(kind).items()
        if what == "export" or kind.startswith("forest")
    )


def measure(session: Session) -> list[Row]:
    """Measure copies, each by a new daemon with an empty index. All go to the same disk; nothing calls fsync."""
    rows = []
    for kind, size in SIZES.items():
        names = {what: name for what, name in _rows(kind).items() if session.wanted(name)}
        if names:
            rows += _measure_kind(session, kind, size // 10 if session.quick else size, names)
    return rows


def _measure_kind(session: Session, kind: str, size: int, names: dict[str, str]) -> list[Row]:
    session.need_disk(size * 3)
    session.need_memory(size * 3)
    home = session.folder(f"compressing-{kind.replace(' ', '-')}")
    store = os.path.join(home, "models")
    model = kind.split()[0]
    if model == "f32":
        samples.float_weights(store, model, size, 4)
    elif model == "forest":
        samples.forest(store, model, size, session.bentoml_python)
    elif kind in FILES:
        samples.json_files(store, model, size // FILES[kind], FILES[kind])
    else:
        samples.text(store, model, size)
    folder = os.path.join(store, model, samples.VERSION)
    run(["sync", "-f", session.work], 600)
    limit = session.read_limit(size) * 3
    options = () if kind in FILES else OPTIONS  # files so small are compressed in any case
    copy, peer = os.path.join(home, "copy"), os.path.join(home, "peer")
    found: dict[str, list[float]] = {}

    def keep(what: str, value: float) -> None:
        found.setdefault(what, []).append(value)

    for turn in range(session.rounds):
        for who in ("ours", "peer") if turn % 2 else ("peer", "ours"):
            if who == "peer":
                keep("pigz", seconds(["sh", "-c", 'tar c -C "$0" . | pigz -1 > "$1"', folder, peer], limit))
                keep("pigz size", os.path.getsize(peer))
                os.unlink(peer)
                if "zip" in names:
                    keep("zip -1", seconds(["sh", "-c", 'cd "$0" && zip -q -1 -r "$1.zip" .', folder, peer], limit))
                    os.unlink(f"{peer}.zip")
                continue
            with session.launch.ours(store, options=options) as daemon:
                archive = samples.archive_path(daemon.mountpoint, model, "tar.gz")
                keep("first", seconds(["cp", archive, copy], limit))
                keep("size", os.path.getsize(copy))
                drop_pages(archive)
                keep("second", seconds(["cp", archive, copy], limit))
            if "zip" in names:
                with session.launch.ours(store, options=options) as daemon:
                    archive = samples.archive_path(daemon.mountpoint, model, "zip")
                    keep("zip", seconds(["cp", archive, copy], limit))
            os.unlink(copy)
    peers = {"first": "pigz", "size": "pigz size", "second": "pigz", "zip": "zip -1"}
    if "random" in names:
        _random_reads(session, store, home, model, found)
        peers["random"] = "pass-through"
    if "export" in names:
        found["export"] = found["first"]
        found["bentoml"] = [_export(session, home, model, limit * 20)]
        peers["export"] = "bentoml"
    rows = []
    for what, name in names.items():
        ours, theirs = found[what], found[peers[what]]
        if what == "size":
            rows += session.keep(
                Row(name, "MB", [n / MB for n in ours], [n / MB for n in theirs], target=1, at_most=True)
            )
        else:
            target = (1.5 if kind in FILES else 3) if what == "first" else None
            rows += session.keep(Row(name, "s", ours, theirs, "peer/ours", target=target))
    return rows


def _random_reads(session: Session, store: str, home: str, model: str, found: dict[str, list[float]]) -> None:
    """Measure single reads at random places, of a measured archive and of the same bytes behind the pass-through."""
    cache = os.path.join(home, "cache")
    os.mkdir(cache)
    ready = os.path.join(home, "ready")
    os.mkdir(ready)
    command = [sys.executable, "-S", "-c", RANDOM_READS]
    with session.launch.ours(store, cache, OPTIONS) as daemon:
        run(["cp", samples.archive_path(daemon.mountpoint, model, "tar.gz"), f"{ready}/copy"], 600)
    for _ in range(session.rounds):
        with session.launch.ours(store, cache, OPTIONS) as daemon:
            archive = samples.archive_path(daemon.mountpoint, model, "tar.gz")
            found.setdefault("random", []).append(seconds([*command, archive, str(READS)], 600))
        with session.launch.pass_through(ready) as daemon:
            path = os.path.join(daemon.mountpoint, "copy")
            found.setdefault("pass-through", []).append(seconds([*command, path, str(READS)], 600))


def _export(session: Session, home: str, model: str, limit: float) -> float:
    environment = {**os.environ, "BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": ""}
    target = os.path.join(home, "export.tar.gz")
    tag = f"{model}:{samples.VERSION}"
    took = seconds([session.bentoml_python, "-m", "bentoml", "models", "export", tag, target], limit, env=environment)
    if not os.path.getsize(target):
        raise BenchError("BentoML exported nothing")
    return took
