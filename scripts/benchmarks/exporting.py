"""Copying out and in against BentoML's own export and import of the same model, and against tar."""

import os
import shutil

from . import samples
from .commands import run, say, seconds
from .report import Row
from .session import Session

MEMBERS = 4


def row_name(size: int) -> str:
    return f"cp .bentomodel vs bentoml models export ({size / 1e6:.0f} MB of f32, one export)"


def import_row_name(size: int) -> str:
    return f"cp .bentomodel to incoming/ vs bentoml models import of its own ({size / 1e6:.0f} MB of f32)"


def compressed_row_name(size: int) -> str:
    return f"cp of BentoML's .bentomodel to incoming/ vs tar xJ, sync -f ({size / 1e6:.0f} MB of f32)"


def tar_row_name(size: int) -> str:
    return f"cp .bentomodel to incoming/ vs tar x, sync -f ({size >> 20} MiB)"


def needs_bentoml(rows: str, size: int) -> bool:
    """Tell whether one of the requested rows runs BentoML."""
    return any(rows.lower() in name(size).lower() for name in (row_name, import_row_name, compressed_row_name))


def measure(session: Session) -> list[Row]:
    """Measure several cp's, each by a new daemon with an empty index, and one export and one import, since they take
    minutes.

    Both write to the same disk; neither calls fsync. The export's time includes the start of Python and BentoML, since
    a person waits for it too: it is seconds in minutes.
    """
    size = session.export_size
    if not needs_bentoml(session.rows, size):
        return []
    session.need_disk(size * 4)
    home = session.folder("bentoml-home")
    store = os.path.join(home, "models")
    say(f"exporting: making a model of {size / 1e6:.0f} MB")
    samples.float_weights(store, "weights", size, MEMBERS)
    run(["sync", "-f", session.work], 600)
    target = os.path.join(session.work, "export.bentomodel")
    copies = []
    for _ in range(session.rounds):
        with session.launch.ours(store) as daemon:
            archive = samples.archive_path(daemon.mountpoint, "weights", "bentomodel")
            copies.append(seconds(["cp", archive, target], session.read_limit(size)))
        os.unlink(target)
    say(f"exporting: bentoml models export, once; at 1 to 2 MB/s this takes about {size / 1.3e6:.0f} s")
    env = {
        **os.environ,
        "BENTOML_HOME": home,
        "BENTOML_DO_NOT_TRACK": "True",
        "TMPDIR": session.folder("tmp"),
        "PYTHONPATH": "",
    }
    tag = f"weights:{samples.VERSION}"
    export = seconds(
        [session.bentoml_python, "-m", "bentoml", "models", "export", tag, target], 300 + size / 2e5, env=env
    )
    rows = session.keep(Row(row_name(size), "s", copies, [export], "peer/ours", target=200))
    if session.wanted(import_row_name(size)):
        own = os.path.join(session.work, f"weights-{samples.VERSION}.bentomodel")
        with session.launch.ours(store) as daemon:
            run(["cp", samples.archive_path(daemon.mountpoint, "weights", "bentomodel"), own], session.read_limit(size))
        others = session.folder("bentoml-home-to-import")
        env["BENTOML_HOME"] = others
        peer = seconds([session.bentoml_python, "-m", "bentoml", "models", "import", target], 300 + size / 2e5, env=env)
        copies = [_import(session, own, size) for _ in range(session.rounds)]
        rows += session.keep(Row(import_row_name(size), "s", copies, [peer], "peer/ours", target=40))
    if session.wanted(compressed_row_name(size)):
        ours, unpacking = _against_tar(session, target, size)
        rows += session.keep(Row(compressed_row_name(size), "s", ours, unpacking, target=1.1, at_most=True))
    os.unlink(target)
    return rows


def measure_against_tar(session: Session) -> list[Row]:
    """Measure `cp` into `incoming/`, which returns when the model is durable, against unpacking the same file
    durably."""
    size = session.size
    if not session.wanted(tar_row_name(size)):
        return []
    session.need_disk(size * 5)
    store = session.folder("store-to-import")
    say(f"importing: making a model of {size >> 20} MiB")
    samples.incompressible(store, "model", size, 200)
    archive = os.path.join(session.work, f"model-{samples.VERSION}.bentomodel")
    with session.launch.ours(store) as daemon:
        run(["cp", samples.archive_path(daemon.mountpoint, "model", "bentomodel"), archive], session.read_limit(size))
    ours, peer = _against_tar(session, archive, size)
    return session.keep(Row(tar_row_name(size), "s", ours, peer, target=1.1, at_most=True))


def _against_tar(session: Session, archive: str, size: int) -> tuple[list[float], list[float]]:
    """Return the times of `cp` into `incoming/`, and of unpacking the same file durably, by turns."""
    ours, peer = [], []
    for _ in range(session.rounds):
        run(["sync", "-f", session.work], 600)
        ours.append(_import(session, archive, size))
        unpacked = session.folder("unpacked")
        run(["sync", "-f", session.work], 600)
        script = 'tar -xJf "$0" -C "$1" && sync -f "$1"'
        peer.append(seconds(["sh", "-c", script, archive, unpacked], session.read_limit(size)))
        shutil.rmtree(unpacked)
    return ours, peer


def _import(session: Session, archive: str, size: int) -> float:
    """Return the time of one `cp` into the `incoming/` of an empty store."""
    store = os.path.join(session.folder("importing-home"), "models")
    os.mkdir(store)
    try:
        with session.launch.ours(store) as daemon:
            return seconds(["cp", archive, os.path.join(daemon.mountpoint, "incoming")], session.read_limit(size))
    finally:
        shutil.rmtree(os.path.dirname(store))
