"""Row 2: `cp` of a .bentomodel against `bentoml models export` of the same model."""

import os

from . import samples
from .commands import run, say, seconds
from .report import Row
from .session import Session

MEMBERS = 4


def row_name(size: int) -> str:
    return f"cp .bentomodel vs bentoml models export ({size / 1e6:.0f} MB of f32, one export)"


def measure(session: Session) -> list[Row]:
    """Several cp's, each by a new daemon with an empty index; one export, since it takes minutes.

    Both write to the same disk; neither calls fsync. The export's time has Python's and BentoML's start in it, since
    that is what a person waits for; they are seconds in minutes.
    """
    size = session.export_size
    name = row_name(size)
    if not session.wanted(name):
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
    os.unlink(target)
    return session.keep(Row(name, "s", copies, [export], "peer/ours", target=200))
