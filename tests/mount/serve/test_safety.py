"""`bentofs serve`: what it refuses, and who may read it."""

import asyncio
import base64
import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from bentofs.mount.daemon.listening import bound_sockets
from bentofs.mount.errors import CannotMountError
from bentofs.mount.serve.auth import read_credentials
from bentofs.mount.serve.connections import MOST, Activity, Phase
from tests.harness import make_model, run, wait_until
from tests.incoming import peak_memory
from tests.serving import Served

TOKEN = "a-token-of-32-characters-or-more!"
PASSWORD = "pa:ss wörd"
FILE = "/models/iris/v1/files/w.bin"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store") / "models"
    store.mkdir()
    make_model(store, "iris:v1", {"w.bin": b"w" * 5000, "<b>.txt": b"x"})
    (store.parent / "secret").write_text("the content")
    return store


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(store, tmp_path_factory.mktemp("server"), "--host", "models.example.org", own_process=True) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that knows a user and a token, by HTTPS, for other machines."""
    base = tmp_path_factory.mktemp("guarded")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
    (base / "users").write_text(f"# users\nann:{hashed}\n")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("openssl", "req", "-x509", *key, *subject, "-days", "2", "-keyout", base / "key.pem", "-out", base / "cert.pem")
    options = ["--bind", "0.0.0.0:0", "--auth", base / "users", "--tls-cert", base / "cert.pem"]
    options += ["--tls-key", base / "key.pem"]
    with Served(store, base, *map(str, options), environment={"BENTOFS_SERVE_TOKEN": TOKEN}) as server:
        yield server


def raw(server: Served, request: bytes) -> bytes:
    """Send bytes, and return the head of what comes back."""
    with socket.create_connection(server.address, timeout=30) as sock:
        sock.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got and (part := sock.recv(1 << 16)):
            got += part
        return got


def status(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "target",
    [
        "/../secret",
        "/models/../../secret",
        "/%2e%2e/secret",
        "/models/.%2e/%2e./secret",
        "/models/iris/v1/files/..%2f..%2f..%2f..%2fsecret",
        "/models/iris/v1/files/..%5csecret",
        "/models//iris",
        "//models/iris",
        "/models/./iris",
        "/models%2firis%2fv1",
        "/models/iris%00",
        "/models/iris%0d%0aX: y",
        "/models/%",
        "/models/%zz",
        "/models/%2",
        "/models/%ff%fe",
        "/models/" + "a" * 300,
        "models/iris",
        "*",
        "http://",
        "http:///etc/passwd",
        "file:///etc/passwd",
    ],
)
def test_odd_targets_lead_nowhere(server: Served, target: str) -> None:
    got = raw(server, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status(got) in (400, 404, 405, 414, 421), got
    assert b"the content" not in got
    assert b"\r\nX: y" not in got


@pytest.mark.parametrize(
    ("host", "want"),
    [
        ("localhost", 200),
        ("LOCALHOST.:8080", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("[fe80::1%eth0]", 200),
        ("[fe80::1%$(x)]", 421),
        ("192.0.2.7", 200),
        ("models.example.org", 200),
        ("evil.example.org", 421),
        ("localhost.evil.example.org", 421),
        ("localhost@evil.example.org", 421),
        ("evil.example.org/localhost", 421),
        ("localhost:port", 421),
        ("", 421),
    ],
)
def test_host(server: Served, host: str, want: int) -> None:
    assert server.ask("GET", "/README.txt", {"Host": host}).status == want


def test_host_in_the_target(server: Served) -> None:
    assert status(raw(server, b"GET http://localhost/README.txt HTTP/1.1\r\nHost: evil.example\r\n\r\n")) == 200
    assert status(raw(server, b"GET http://evil.example/README.txt HTTP/1.1\r\nHost: localhost\r\n\r\n")) == 421
    assert status(raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")) == 400
    assert status(raw(server, b"GET / HTTP/1.1\r\nA: b\r\n\r\n")) == 400


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PUT /incoming/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_limits_of_a_request(server: Served, request_text: bytes) -> None:
    assert status(raw(server, request_text)) == 400


@pytest.mark.parametrize(
    ("headers", "want"),
    [
        ({}, 405),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 405),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 405),
        ({"Host": "models.example.org", "Origin": "https://models.example.org"}, 405),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8081"}, 403),
    ],
)
def test_no_page_of_another_site_changes_anything(server: Served, headers: dict[str, str], want: int) -> None:
    assert server.ask("DELETE", FILE, headers).status == want


def test_headers_that_bind_browsers(server: Served) -> None:
    for path in ("/", FILE, "/models/no", "/incoming/"):
        got = server.get(path)
        assert got.headers["X-Content-Type-Options"] == "nosniff", path
        assert "default-src 'none'" in got.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in got.headers["Content-Security-Policy"]
        assert got.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert got.headers["Server"] == "bentofs"
        assert got.headers["Access-Control-Allow-Origin"] is None


def test_an_answer_never_repeats_markup(server: Served) -> None:
    got = server.get("/models/%3Cscript%3E")
    assert got.status == 404
    assert got.headers["Content-Type"].startswith("text/plain")
    assert b"&lt;b&gt;.txt" in server.get("/models/iris/v1/files/").body


def test_status_and_log_are_for_users_only(server: Served) -> None:
    assert server.get("/.bentofs/metrics").status == 200
    assert server.get("/.bentofs/status.json").status == 403
    assert server.get("/.bentofs/log").status == 403


@pytest.fixture
def many_open_files() -> Iterator[None]:
    """Let this process open as many files as it may. An ordinary user's limit is often 1,024."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_open_files")
def test_idle_clients_are_bounded(server: Served) -> None:
    idle = []
    try:
        for number in range(MOST * 2):
            sock = socket.create_connection(server.address, timeout=30)
            sock.sendall(b"GET / HTTP/1.1\r\nHost" if number % 2 else b"")
            idle.append(sock)
        assert server.get(FILE).body == b"w" * 5000
        open_files = os.listdir(f"/proc/{server.process.pid}/fd")
        assert len(open_files) < MOST + 150
        assert peak_memory(server.process.pid) < 150_000_000
    finally:
        for sock in idle:
            sock.close()


def test_stalled_transfers_give_way(tmp_path: Path) -> None:
    """Clients that take no bytes of a download, or send none of a body, do not keep others out."""
    make_model(tmp_path / "models", "big:v1", {"w.bin": 8 << 20})
    with Served(tmp_path / "models", tmp_path, own_process=True) as server, contextlib.ExitStack() as stack:
        server.allow_log("was not imported: only ")
        for number in range(MOST):
            sock = stack.enter_context(socket.create_connection(server.address, timeout=30))
            if number % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
                sock.sendall(b"GET /models/big/v1/files/w.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
            else:
                sock.sendall(b"PROPFIND / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n")

        def gets_in() -> bool:
            with contextlib.suppress(ConnectionError):
                return server.get("/README.txt").status == 200
            return False

        wait_until(gets_in, 40, "another client gets in")


def test_silent_clients_are_closed() -> None:
    """A download may pause for minutes. A request that does not end, and a body that stops, may not."""
    activity = Activity(asyncio.Transport())
    for phase, seconds in ((Phase.NEW, 30), (Phase.IDLE, 100), (Phase.RECEIVING, 100), (Phase.SENDING, 700)):
        activity.enter(phase)
        assert not activity.has_stalled(activity.since + seconds / 2)
        assert activity.has_stalled(activity.since + seconds)
    activity.enter(Phase.WORKING)
    assert not activity.has_stalled(activity.since + 1e9)


def test_other_machines_need_a_password(store: Path, tmp_path: Path) -> None:
    command = Served(store, tmp_path, "--bind", "0.0.0.0:0").command()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "bentofs: other machines could reach 0.0.0.0:0, and nobody would have to show a password: add --auth FILE, or "
        "bind to 127.0.0.1\n"
    )
    for host in ("::", "0", socket.gethostbyname(socket.gethostname())):
        if host.startswith("127."):
            continue
        with pytest.raises(CannotMountError, match="other machines could reach"):
            bound_sockets(host, 0, must_be_local=True)
    for host in ("127.0.0.1", "127.1.2.3", "localhost"):
        for sock in bound_sockets(host, 0, must_be_local=True):
            sock.close()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("ann:$apr1$salt$hash\n", "line 1 of .* has no bcrypt hash of a cost of at most 16: make it with"),
        ("\nann:secret-password\n", "line 2 of .* has no bcrypt hash"),
        (f"ann:$2b$31${'a' * 53}\n", "has no bcrypt hash of a cost of at most 16"),
        ("short\n", "line 1 of .* is no token"),
        ("# nothing\n", "has no user and no token"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_wrong_file_of_users_is_a_sentence(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "users").write_text(content)
    with pytest.raises(CannotMountError, match=sentence) as caught:
        read_credentials(str(tmp_path / "users"), None)
    assert caught.value.status == 2
    assert "secret-password" not in str(caught.value)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "want"),
    [
        (None, 401),
        (basic("ann", PASSWORD), 200),
        (basic("ann", "wrong"), 401),
        (basic("ann", ""), 401),
        (basic("ann", PASSWORD + "x" * 100), 401),
        (basic("bob", PASSWORD), 401),
        (basic("any", TOKEN), 200),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        ("Bearer ", 401),
        ("Basic !!!", 401),
        ("Basic", 401),
        (f"Digest {TOKEN}", 401),
    ],
)
def test_users_and_tokens(guarded: Served, header: str | None, want: int) -> None:
    for path in ("/", FILE, "/.bentofs/status.json", "/models/no"):
        got = guarded.ask("GET", path, {} if header is None else {"Authorization": header})
        assert got.status == (404 if want == 200 and path == "/models/no" else want), path
        assert want == 200 or b"w" * 100 not in got.body
    if want == 401:
        assert got.headers.get_all("WWW-Authenticate") == [
            'Basic realm="bentofs", charset="UTF-8"',
            'Bearer realm="bentofs"',
        ]


def test_tls_and_tools(guarded: Served, tmp_path: Path) -> None:
    _, port = guarded.address
    certificate = Path(guarded.environment["HOME"]).parent / "cert.pem"
    url = f"https://localhost:{port}{FILE}"
    run("curl", "-sSf", "--cacert", certificate, "-u", f"ann:{PASSWORD}", "-o", tmp_path / "w", url)
    assert (tmp_path / "w").read_bytes() == b"w" * 5000
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:  # no HTTP on this port
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP" not in sock.recv(1000)


def test_no_secret_is_told(guarded: Served) -> None:
    for header in (basic("ann", PASSWORD), basic("ann", "another-secret"), f"Bearer {TOKEN}"):
        guarded.ask("GET", f"{FILE}?token=query-secret", {"Authorization": header})
        guarded.ask("GET", "/.bentofs/log", {"Authorization": header})
    told = (
        guarded.log() + guarded.ask("GET", "/.bentofs/status.json", {"Authorization": f"Bearer {TOKEN}"}).body.decode()
    )
    told += Path(f"/proc/{guarded.process.pid}/cmdline").read_text()
    for secret in (
        TOKEN,
        PASSWORD,
        "another-secret",
        "query-secret",
        "$2y$",
        base64.b64encode(TOKEN.encode()).decode(),
    ):
        assert secret not in told
