"""Rows on `bentofs serve`: throughput against rclone and nginx, uploads against cp into a mount, memory, pages."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from . import samples
from .commands import BenchError, run, say, seconds
from .listing import write_model
from .mounts import signals_held_back
from .report import Row
from .servers import tool
from .session import Session

START_LIMIT = 60.0
DOWNLOADS = 50
MEMBERS = 200
LISTED, VERSIONS = 2500, 4  # names and versions of the models that a page lists
PAUSE = 3.0  # seconds between two visits: what the server knows has grown old
MOST_SECONDS = 0.3
_NAMES = {
    "rclone": "GET of a .tar, vs rclone serve http of a mount",
    "nginx": "GET of a .tar, vs nginx with the ready file",
    "cp": "PUT of a .tar, 512 MiB, vs cp into a mount",
    "memory": f"memory with {DOWNLOADS} slow downloads",
    "page": f"page of {LISTED * VERSIONS:,} models, visited again",
    "search": f"search in {LISTED * VERSIONS:,} models",
}
_TARGETS = {"rclone": 1.5, "nginx": 0.7}
_PUT_SIZE = 512 * samples.MIB


class Server:
    """A running server on loopback."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def resident(self) -> int:
        """Return the memory of the process in bytes, shared pages divided among those that share them."""
        with open(f"/proc/{self.process.pid}/smaps_rollup") as found:
            return next(int(line.split()[1]) * 1024 for line in found if line.startswith("Pss:"))


@contextmanager
def _running(session: Session, argv: Sequence[str], port: int, env: dict[str, str] | None = None) -> Iterator[Server]:
    """Give a server once it accepts connections."""
    log = os.path.join(session.work, "daemons.log")
    process = None
    try:
        with signals_held_back(), open(log, "ab") as sink:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, **(env or {})},
                cwd=session.launch.root,
                start_new_session=True,
            )
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    with open(log, errors="replace") as found:
                        raise BenchError(f"no server from `{argv!r}`: {found.read()[-2000:]}") from None
                time.sleep(0.02)
        yield Server(process, port)
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def _ours(session: Session, store: str) -> Iterator[Server]:
    port = _free_port()
    argv = session.launch.bentofs("serve", "--store", store, "--bind", f"127.0.0.1:{port}")
    with session.launch.empty_environment() as env, _running(session, argv, port, env) as server:
        yield server


@contextmanager
def _nginx(session: Session, folder: str) -> Iterator[Server]:
    port = _free_port()
    config = os.path.join(session.work, "nginx.conf")
    with open(config, "w") as file:
        file.write(
            f"daemon off; pid {session.work}/nginx.pid; error_log stderr; events {{}} user root;\n"
            f"http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
        )
    with _running(session, ["nginx", "-c", config, "-e", "stderr"], port) as server:
        yield server


@contextmanager
def _rclone(session: Session, folder: str) -> Iterator[Server]:
    port = _free_port()
    argv = [tool(session.launch.python, "rclone"), "serve", "http", folder, "--addr", f"127.0.0.1:{port}"]
    with _running(session, [*argv, "--config", os.devnull], port) as server:
        yield server


def _speed(session: Session, url: str, size: int) -> float:
    """Return the MB/s of a download."""
    took = seconds(["curl", "-sSf", "-o", os.devnull, url], session.read_limit(size))
    return size / 1e6 / took


def measure(session: Session) -> list[Row]:
    wanted = {key for key, name in _NAMES.items() if session.wanted(name)}
    if not wanted:
        return []
    for program in ("curl", "nginx"):
        if not shutil.which(program):
            raise BenchError(f"{program} is missing: apt-get install curl nginx-light")
    rows = []
    if wanted & {"rclone", "nginx", "memory"}:
        rows += _reads(session, wanted)
    if "cp" in wanted:
        rows += _uploads(session)
    if wanted & {"page", "search"}:
        rows += _pages(session, wanted)
    return rows


def _reads(session: Session, wanted: set[str]) -> list[Row]:
    session.need_memory(session.size * 3)
    session.need_disk(session.size * 2)
    say(f"serving: making a model of {session.size >> 20} MiB in {MEMBERS} members")
    store, ready = session.folder("serving-store"), session.folder("serving-ready")
    samples.incompressible(store, "random", session.size, MEMBERS)
    path = samples.archive_path("", "random", "tar").lstrip("/")
    speeds: dict[str, list[float]] = {"ours": [], "rclone": [], "nginx": []}
    rows = []
    with ExitStack() as stack:
        mount = stack.enter_context(session.launch.ours(store))
        run(["cp", samples.archive_path(mount.mountpoint, "random", "tar"), f"{ready}/a.tar"], 600)
        size = os.stat(f"{ready}/a.tar").st_size
        ours = stack.enter_context(_ours(session, store))
        urls = {
            "ours": ours.url(path),
            "rclone": stack.enter_context(_rclone(session, mount.mountpoint)).url(path),
            "nginx": stack.enter_context(_nginx(session, ready)).url("a.tar"),
        }
        for url in urls.values():  # into the page cache
            _speed(session, url, size)
        for turn in range(session.rounds):
            order = list(urls)[turn % 3 :] + list(urls)[: turn % 3]
            for server in order:
                speeds[server].append(_speed(session, urls[server], size))
        for peer, target in _TARGETS.items():
            if peer in wanted:
                rows += session.keep(Row(_NAMES[peer], "MB/s", speeds["ours"], speeds[peer], target=target))
        if "memory" in wanted:
            rows += session.keep(_memory(ours, path))
    return rows


def _memory(server: Server, path: str) -> Row:
    """Measure the memory while slow clients download: each takes 64 KiB, waits for 20 ms, and so on."""
    request = f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    clients = [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(DOWNLOADS)]
    found = []
    try:
        for client in clients:
            client.sendall(request)
        for _ in range(100):
            for client in clients:
                client.recv(1 << 16)
            time.sleep(0.02)
            found.append(server.resident() / 1e6)
    finally:
        for client in clients:
            client.close()
    return Row(_NAMES["memory"], "MB", [max(found)], target=150, at_most=True)


def _uploads(session: Session) -> list[Row]:
    session.need_disk(_PUT_SIZE * 6)
    say("serving: making a model of 512 MiB to upload")
    source, ready = session.folder("put-source"), session.folder("put-ready")
    samples.incompressible(source, "random", _PUT_SIZE, MEMBERS)
    archive = os.path.join(ready, "random-v1.tar")
    with session.launch.ours(source) as mount:
        run(["cp", samples.archive_path(mount.mountpoint, "random", "tar"), archive], 600)
    times: dict[str, list[float]] = {"ours": [], "cp": []}
    for turn in range(session.rounds):
        for who in ("ours", "cp") if turn % 2 else ("cp", "ours"):
            target = session.folder(f"put-{who}-{turn}")
            store = os.path.join(target, "models")
            os.mkdir(store)
            run(["sync", "-f", session.work], 600)
            if who == "ours":
                with _ours(session, store) as server:
                    argv = ["curl", "-sSf", "-o", os.devnull, "-T", archive, server.url("incoming/")]
                    times[who].append(seconds(argv, 600))
            else:
                with session.launch.ours(store) as mount:
                    times[who].append(seconds(["cp", archive, f"{mount.mountpoint}/incoming/"], 600))
            if not os.path.isdir(os.path.join(store, "random", samples.VERSION)):
                raise BenchError(f"{who}: the model was not imported")
            shutil.rmtree(target)
    return session.keep(Row(_NAMES["cp"], "s", times["ours"], times["cp"], target=1.3, at_most=True))


def _pages(session: Session, wanted: set[str]) -> list[Row]:
    """Measure the list of models for a visitor who comes back, and for one who searches."""
    say(f"serving: making {LISTED * VERSIONS:,} models")
    store = session.folder("page-store")
    for name in range(LISTED):
        for version in range(VERSIONS):
            write_model(store, f"model-{name:04}", f"v{version}", 1)
    times: dict[str, list[float]] = {"page": [], "search": []}
    paths = {"page": "", "search": "?q=model-12"}
    with _ours(session, store) as server:
        for path in paths.values():  # the first look reads each model.yaml
            run(["curl", "-sSf", "-o", os.devnull, server.url(path)], 600)
        for _ in range(session.rounds):
            for who, path in paths.items():
                time.sleep(PAUSE)
                times[who].append(seconds(["curl", "-sSf", "-o", os.devnull, server.url(path)], 60))
    return [
        row
        for who, found in times.items()
        if who in wanted
        for row in session.keep(Row(_NAMES[who], "s", found, target=MOST_SECONDS, at_most=True))
    ]
