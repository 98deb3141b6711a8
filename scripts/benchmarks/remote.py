"""A store in S3, and exports to S3, against rclone, s3fs and BentoML at one server."""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from . import samples
from .commands import BenchError, run, say, seconds
from .mounts import Daemon
from .reading import MEMBERS, throughput
from .report import Row
from .servers import BUCKET, CountingProxy, S3Server, tool
from .session import Session

GIB = 1 << 30
MIB = 1 << 20
EXPORT_SIZE = 20_000_000  # bytes; BentoML exports one to three megabytes a second
MOST_RECEIVED = 20  # MiB
LIMIT = 600.0
COPY_PEERS = ("rclone mount", "s3fs get")
FIRST, FETCHED, SECOND = "first list", "first list, fetched", "second list"
LISTS = (FIRST, FETCHED, SECOND)
LISTING_TARGETS = {FIRST: 2.0, SECOND: 0.6, "ls -l": 2.0}
# The script times itself: neither Python's start nor the loading of s3fs counts, since the mounts are ready before `cp`
# starts.
S3FS_GET = """
import sys, time
import s3fs
fs = s3fs.S3FileSystem()
fs.ls(sys.argv[1].partition("/")[0])
start = time.perf_counter()
fs.get(sys.argv[1], sys.argv[2])
print(time.perf_counter() - start)
"""


def copy_row_name(peer: str) -> str:
    return f"cp .tar of a store in S3, first read, vs {peer}"


def export_row_name() -> str:
    return f"bentofs export to S3 vs bentoml models export ({EXPORT_SIZE / 1e6:.0f} MB of f32, one export)"


def listing_row_names(models: int) -> dict[str, str]:
    """Return command -> row name."""
    return {
        FIRST: f"first bentofs list on a machine, {models:,} models in S3, vs rclone lsf -R",
        FETCHED: f"first bentofs list on a machine, {models:,} models in S3, vs rclone copy of their model.yaml",
        SECOND: f"second bentofs list on a machine, {models:,} models in S3, vs rclone lsf -R",
        "ls": f"ls models/, {models:,} models in S3, vs rclone mount",
        "ls -l": f"ls -l models/, {models:,} models in S3, vs rclone mount",
    }


def member_row_name(quick: bool) -> str:
    return f"received for unzip -p x.zip model.yaml, {1 if quick else 10} GiB in S3"


def needs_bentoml(rows: str) -> bool:
    """Tell whether one of the requested rows runs BentoML, with s3fs in its environment."""
    return rows.lower() in export_row_name().lower()


def check(rows: str, python: str, bentoml_python: str, models: int, quick: bool, others: list[str]) -> None:
    """Check for missing tools of the requested rows. `others`: the names of further rows that need the server."""
    names = [*map(copy_row_name, COPY_PEERS), export_row_name(), *listing_row_names(models).values(), *others]
    if any(rows.lower() in name.lower() for name in [*names, member_row_name(quick)]):
        for name in ("weed", "rclone"):
            tool(python, name)
    if needs_bentoml(rows):
        try:
            run([bentoml_python, "-c", "import s3fs"], 60)
        except BenchError:
            raise BenchError(
                f"s3fs, which BentoML needs for S3, cannot be loaded: {bentoml_python} -m pip install s3fs"
            ) from None


def measure(session: Session) -> list[Row]:
    return [*_copying(session), *_exporting(session), *_listing(session), *_member(session)]


def server_of(session: Session) -> S3Server:
    """Return the session's one server. It starts at the first request."""
    if session.server is None:
        say("S3: starting SeaweedFS")
        server = S3Server(session.launch.python, session.folder("s3"))
        session.cleanup.enter_context(server.running())
        session.server = server
    return session.server


def _copying(session: Session) -> list[Row]:
    """Measure `cp` of a .tar by a new daemon, of a model of many objects. The peers read the same archive from one
    object."""
    wanted = [peer for peer in COPY_PEERS if session.wanted(copy_row_name(peer))]
    if not wanted:
        return []
    size = session.size
    session.need_disk(size * 4)
    session.need_memory(size * 4)  # the server's data, the pages of a mount, the copy
    server = server_of(session)
    say(f"S3: making a model of {size >> 20} MiB in {MEMBERS} members")
    store = session.folder("s3-copying-store")
    samples.incompressible(store, "random", size, MEMBERS)
    limit = session.read_limit(size)
    server.rclone("copy", store, f"s3:{BUCKET}/copying", limit=limit)
    url, name = f"s3://{BUCKET}/copying", f"random-{samples.VERSION}.tar"
    ready = os.path.join(session.folder("s3-ready"), name)
    env = server.environment()
    with session.launch.ours(url, env=env) as daemon:
        run(["cp", samples.archive_path(daemon.mountpoint, "random", "tar"), ready], limit)
    server.rclone("copy", ready, f"s3:{BUCKET}/ready", limit=limit)
    with session.launch.rclone(server.rclone_path, f"s3:{BUCKET}/ready", env) as daemon:
        run(["cmp", ready, os.path.join(daemon.mountpoint, name)], limit)
    length = os.path.getsize(ready)
    copy = os.path.join(session.memory_folder(size) or session.folder("s3-copy"), "copy")

    def ours() -> float:
        with session.launch.ours(url, env=env) as daemon:
            archive = samples.archive_path(daemon.mountpoint, "random", "tar")
            run(["stat", archive], limit)
            return throughput(session, daemon, length, ["cp", archive, copy])

    def mounted() -> float:
        with session.launch.rclone(server.rclone_path, f"s3:{BUCKET}/ready", env) as daemon:
            archive = os.path.join(daemon.mountpoint, name)
            run(["stat", archive], limit)
            return throughput(session, daemon, length, ["cp", archive, copy])

    def fetched() -> float:
        argv = [session.launch.python, "-c", S3FS_GET, f"{BUCKET}/ready/{name}", copy]
        return length / 1e6 / float(run(argv, limit, env={**os.environ, **env}))

    ways: dict[str, Callable[[], float]] = {"ours": ours, "rclone mount": mounted, "s3fs get": fetched}
    ways = {way: measured for way, measured in ways.items() if way in ("ours", *wanted)}
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(session.rounds):
        order = list(ways)
        for way in order[turn % len(order) :] + order[: turn % len(order)]:
            speeds[way].append(ways[way]())
            os.unlink(copy)
    os.unlink(ready)
    return [
        row
        for peer in wanted
        for row in session.keep(Row(copy_row_name(peer), "MB/s", speeds["ours"], speeds[peer], target=1))
    ]


def _exporting(session: Session) -> list[Row]:
    """Measure both from one local store to one bucket, program start included."""
    name = export_row_name()
    if not session.wanted(name):
        return []
    server = server_of(session)
    home = session.folder("s3-bentoml-home")
    store = os.path.join(home, "models")
    samples.float_weights(store, "weights", EXPORT_SIZE, 4)
    env = {**os.environ, **server.environment()}
    tag = f"weights:{samples.VERSION}"
    times = []
    for _ in range(session.rounds):
        argv = session.launch.bentofs("export", tag, f"s3://{BUCKET}/ours/", "--store", store, "--quiet")
        with session.launch.empty_environment() as empty:
            times.append(seconds(argv, LIMIT, env={**env, **empty}))
    say("S3: bentoml models export, once")
    env |= {
        "BENTOML_HOME": home,
        "BENTOML_DO_NOT_TRACK": "True",
        "TMPDIR": session.folder("s3-tmp"),
        "PYTHONPATH": "",
    }
    target = f"s3://{BUCKET}/theirs/weights.bentomodel"
    peer = seconds([session.bentoml_python, "-m", "bentoml", "models", "export", tag, target], LIMIT, env=env)
    for path in (f"ours/weights-{samples.VERSION}.bentomodel", "theirs/weights.bentomodel"):
        if not server.rclone("lsf", f"s3:{BUCKET}/{path}", limit=LIMIT):
            raise BenchError(f"no export has come to {path} in the bucket")
    return session.keep(Row(name, "s", times, [peer], "peer/ours", target=5))


def _listing(session: Session) -> list[Row]:
    """List models of two small files and a `latest`. `bentofs list` reads each model.yaml; `rclone lsf` reads only
    names, sizes and times, and `rclone copy` fetches the same files as a first list."""
    wanted = {what: name for what, name in listing_row_names(session.models).items() if session.wanted(name)}
    if not wanted:
        return []
    server = server_of(session)
    say(f"S3: putting {session.models:,} models into the bucket")
    store = session.folder("s3-listing-store")
    for number in range(session.models):
        folder = samples.begin(store, f"model-{number}")
        with open(os.path.join(folder, "weights.bin"), "w") as file:
            file.write(str(number))
        samples.finish(store, f"model-{number}")
    server.rclone("copy", store, f"s3:{BUCKET}/listing", "--transfers=32", "--no-traverse", limit=LIMIT * 2)
    url, remote, env = f"s3://{BUCKET}/listing", f"s3:{BUCKET}/listing", server.environment()
    in_memory = session.memory_folder(0)

    def listed(daemon: AbstractContextManager[Daemon], below: str, *options: str) -> float:
        with daemon as mounted:
            return seconds(["ls", *options, os.path.join(mounted.mountpoint, below)], LIMIT)

    def ours(what: str, env_of_machine: Mapping[str, str]) -> float:
        if what not in LISTS:
            return listed(session.launch.ours(url, env=env), "models", *what.split()[1:])
        argv = session.launch.bentofs("list", "--store", url)
        return seconds(argv, LIMIT, env={**os.environ, **env, **env_of_machine})

    def peer(what: str) -> float:
        if what not in LISTS:
            return listed(session.launch.rclone(server.rclone_path, remote, env), "", *what.split()[1:])
        if what != FETCHED:
            return seconds([server.rclone_path, "lsf", "-R", "--fast-list", remote], LIMIT, env={**os.environ, **env})
        with tempfile.TemporaryDirectory(dir=in_memory or session.work) as fetched:
            argv = ["copy", "--fast-list", "--transfers=16", "--include=/*/*/model.yaml", remote, fetched]
            return seconds([server.rclone_path, *argv], LIMIT, env={**os.environ, **env})

    if wanted.keys() & {FETCHED, SECOND}:  # the first one must come before them
        wanted = {FIRST: listing_row_names(session.models)[FIRST], **wanted}
    times: dict[str, list[tuple[float, float]]] = {what: [] for what in wanted}
    for turn in range(session.rounds):
        with session.launch.empty_environment() as machine:
            for what in wanted:
                pair = {}
                for which in ("ours", "peer") if turn % 2 else ("peer", "ours"):
                    if which == "peer":
                        pair[which] = peer(what)
                    else:
                        pair[which] = times[FIRST][-1][0] if what == FETCHED else ours(what, machine)
                times[what].append((pair["ours"], pair["peer"]))
    rows = []
    for what, name in wanted.items():
        our_times, peer_times = map(list, zip(*times[what], strict=True))
        rows += session.keep(Row(name, "s", our_times, peer_times, target=LISTING_TARGETS.get(what), at_most=True))
    return rows


def _member(session: Session) -> list[Row]:
    """Count the bytes that a new daemon with an empty index receives from the server, from its start to the end of
    `unzip`: listings, the model's manifest, the zip's directory, one file. The model's files are sparse: only their
    size counts."""
    name = member_row_name(session.quick)
    if not session.wanted(name):
        return []
    size = GIB if session.quick else 10 * GIB
    session.need_disk(size * 2)  # on the server and, while it is imported, in the staging area
    server = server_of(session)
    say(f"S3: importing a model of {size >> 30} GiB into the bucket")
    store, staging = session.folder("s3-member-store"), session.folder("s3-staging")
    samples.sparse(store, "huge", size, 4)
    url = f"s3://{BUCKET}/member"
    model = os.path.join(store, "huge", samples.VERSION)
    argv = session.launch.bentofs("import", model, "--store", url, "--staging", staging, "--quiet")
    with session.launch.empty_environment() as empty:
        run(argv, session.read_limit(size) * 2, env={**os.environ, **server.environment(), **empty})
    received = []
    for _ in range(session.rounds):
        proxy = CountingProxy(server.port)
        try:
            with session.launch.ours(url, env=server.environment(proxy.port)) as daemon:
                archive = samples.archive_path(daemon.mountpoint, "huge", "zip")
                if os.path.getsize(archive) < size:
                    raise BenchError(f"{archive} is no archive of {size} bytes")
                if "name: huge" not in run(["unzip", "-p", archive, "model.yaml"], LIMIT):
                    raise BenchError("unzip did not find the model's model.yaml")
                received.append(proxy.received / MIB)
        finally:
            proxy.close()
    return session.keep(Row(name, "MiB", received, target=MOST_RECEIVED, at_most=True))
