"""`bentofs export` to S3 against `rclone archive create` of the same model's directory, to the same server.

Both stream: neither keeps the archive on disk. In a `.tar.gz`, rclone deflates everything at its one level; in a `.zip`
it stores everything. bentofs chooses by file.
"""

import json
import os
from collections.abc import Mapping, Sequence

from . import samples
from .commands import BenchError, run, say
from .remote import server_of
from .report import Row
from .servers import BUCKET
from .session import Session

MB = 1_000_000
KINDS = {"weights": 300 * MB, "text": 150 * MB}
SUFFIXES = (".tar.gz", ".zip")
MEMBERS = 4
LIMIT = 900.0
# The script measures one program: its time, and the peak of its memory, which only its parent learns.
MEASURED = """
import resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(status)
"""


def row_name(kind: str, suffix: str) -> str:
    return f"bentofs export {suffix} to S3, {kind}, vs rclone archive create"


def memory_row_name(kind: str, suffix: str) -> str:
    return f"peak memory of {row_name(kind, suffix)}"


def size_row_name(kind: str, suffix: str) -> str:
    return f"size of {row_name(kind, suffix)}"


def row_names() -> list[str]:
    return [name for kind in KINDS for suffix in SUFFIXES for name in _names(kind, suffix)]


def measure(session: Session) -> list[Row]:
    """Measure whole programs, their start included. Each of our exports begins with an empty index."""
    rows = []
    for kind, size in KINDS.items():
        wanted = [suffix for suffix in SUFFIXES if any(map(session.wanted, _names(kind, suffix)))]
        if wanted:
            rows += _measure_kind(session, kind, size // 10 if session.quick else size, wanted)
    return rows


def _names(kind: str, suffix: str) -> tuple[str, str, str]:
    return row_name(kind, suffix), memory_row_name(kind, suffix), size_row_name(kind, suffix)


def _measure_kind(session: Session, kind: str, size: int, suffixes: Sequence[str]) -> list[Row]:
    session.need_disk(size * 6)
    server = server_of(session)
    say(f"S3: making a model of {size / 1e6:.0f} MB of {kind}")
    store = session.folder(f"archiving-{kind}")
    if kind == "text":
        samples.text(store, kind, size)
    else:
        samples.float_weights(store, kind, size, MEMBERS)
    folder = os.path.join(store, kind, samples.VERSION)
    env = {**os.environ, **server.environment()}
    rows = []
    for suffix in suffixes:
        name = f"{kind}{suffix}"
        target, remote = f"s3://{BUCKET}/archived/{name}", f"s3:{BUCKET}/archived-by-rclone/{name}"
        argv = session.launch.bentofs("export", f"{kind}:{samples.VERSION}", target, "--store", store, "--quiet")
        figures: dict[str, list[tuple[float, float, float]]] = {"ours": [], "peer": []}
        for turn in range(session.rounds):
            for which in ("ours", "peer") if turn % 2 else ("peer", "ours"):
                if which == "ours":
                    made = f"s3:{BUCKET}/archived/{name}"
                    with session.launch.empty_environment() as empty:
                        measured = _measured(session, argv, {**env, **empty})
                else:
                    made = remote
                    measured = _measured(session, [server.rclone_path, "archive", "create", folder, remote], env)
                size_told = json.loads(server.rclone("size", "--json", made, limit=LIMIT))["bytes"]
                figures[which].append((*measured, size_told / MB))
                server.rclone("deletefile", made, limit=LIMIT)
        times, memory, sizes = (
            {which: [each[at] for each in figures[which]] for which in figures} for at in range(len(_names("", "")))
        )
        rows += session.keep(Row(row_name(kind, suffix), "s", times["ours"], times["peer"], "peer/ours", target=2))
        rows += session.keep(
            Row(memory_row_name(kind, suffix), "MiB", memory["ours"], memory["peer"], target=1, at_most=True)
        )
        rows += session.keep(Row(size_row_name(kind, suffix), "MB", sizes["ours"], sizes["peer"]))
    return rows


def _measured(session: Session, argv: Sequence[str], env: Mapping[str, str]) -> tuple[float, float]:
    """Return the seconds and the peak memory in MiB of one run of a program."""
    told = run([session.launch.python, "-S", "-c", MEASURED, *argv], LIMIT, env=env).split()
    if len(told) != 2:
        raise BenchError(f"`{' '.join(argv)}` wrote to standard output: {told}")
    return float(told[0]), float(told[1])
