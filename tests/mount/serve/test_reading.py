"""`bentofs serve`: GET and HEAD of the tree, by hand and by the tools that people download with."""

import base64
import email
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from bentofs.store.api import export_model
from tests.harness import make_model, remove_model, run, wait_until
from tests.serving import Served
from tests.waiting import wait_until_settled

TAR = "/models/iris/v1/iris-v1.tar"
SIZE = 24 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("store")
    store = base / "models"
    store.mkdir()
    weights = os.urandom(1 << 20) * (SIZE >> 20)
    files: dict[str | bytes, bytes | int] = {
        "w.bin": weights,
        "notes.txt": "grüße\n".encode(),
        "page.html": b"<script>alert(1)</script>",
        "empty": b"",
        'a "b" <i>\'ü%41.txt': b"odd",
    }
    make_model(store, "iris:v1", files, labels={"stage": "prod"})
    make_model(store, "iris:v2", {"w.bin": b"2" * 5000})
    wait_until_settled(store)
    return store


@pytest.fixture(scope="module")
def server(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(store, tmp_path_factory.mktemp("server"), "--by-label") as server:
        yield server


@pytest.fixture(scope="module")
def tar(store: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("exported") / "iris.tar"
    export_model("iris:v1", str(target), store=str(store))
    return target.read_bytes()


def test_a_whole_file(server: Served, tar: bytes) -> None:
    got = server.get(TAR)
    assert got.status == 200
    assert got.body == tar
    assert got.headers["Content-Length"] == str(len(tar))
    assert got.headers["Content-Disposition"] == 'attachment; filename="iris-v1.tar"'
    assert got.headers["Accept-Ranges"] == "bytes"
    assert got.headers["ETag"].startswith('"')
    assert got.headers["Last-Modified"] == "Fri, 02 Jan 2026 03:04:05 GMT"
    head = server.ask("HEAD", TAR)
    assert head.body == b""
    for name in ("Content-Length", "ETag", "Last-Modified", "Content-Type", "Content-Disposition"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("suffix", ["bentomodel", "tar", "tar.gz", "zip"])
def test_each_format_is_that_of_a_mount(server: Served, store: Path, tmp_path: Path, suffix: str) -> None:
    export_model("iris:v1", str(tmp_path / f"a.{suffix}"), store=str(store))
    got = server.get(f"/by-format/{suffix}/iris/iris-v1.{suffix}")
    assert got.body == (tmp_path / f"a.{suffix}").read_bytes()


def test_links_lead_to_what_they_name(server: Served) -> None:
    want = server.get("/models/iris/v2/iris-v2.zip")
    for path in ("/models/iris/latest.zip", "/models/iris/latest/iris-v2.zip", "/by-label/stage/prod/iris/v1/.."):
        got = server.ask("HEAD", path)
        if path.endswith(".."):
            assert got.status == 400
        else:
            assert (got.status, got.headers["ETag"]) == (200, want.headers["ETag"])
            assert 'filename="iris-v2.zip"' in got.headers["Content-Disposition"]
    assert server.get("/by-label/stage/prod/iris/v1/files/notes.txt").body == "grüße\n".encode()


def test_digest_once_it_is_known(server: Served, tar: bytes) -> None:
    sums = server.get(f"{TAR}.sha256").body.decode()
    digest = hashlib.sha256(tar)
    assert sums == f"{digest.hexdigest()}  iris-v1.tar\n"
    want = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    assert server.ask("HEAD", TAR).headers["Repr-Digest"] == want
    assert server.get(TAR, Range="bytes=0-1").headers["Repr-Digest"] == want


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100000-2000000", 100000, 2000001),
        ("bytes=-7", -7, None),
        ("bytes=512-", 512, None),
        ("bytes=0-999999999999", 0, None),
        ("bytes=-999999999999", 0, None),
        ("BYTES = 5-9", 5, 10),
        ("bytes=5-9,8-20", 5, 21),
    ],
)
def test_ranges(server: Served, tar: bytes, wanted: str, start: int, end: int | None) -> None:
    got = server.get(TAR, Range=wanted)
    assert got.status == 206
    assert got.body == tar[start:end]
    first = start % len(tar)
    last = (len(tar) if end is None else end) - 1
    assert got.headers["Content-Range"] == f"bytes {first}-{last}/{len(tar)}"
    assert got.headers["Content-Length"] == str(len(got.body))


def test_several_ranges(server: Served, tar: bytes) -> None:
    got = server.get(TAR, Range="bytes=0-99, 5000-5099,-10")
    assert got.status == 206
    assert len(got.body) == int(got.headers["Content-Length"])
    message = email.message_from_bytes(f"Content-Type: {got.headers['Content-Type']}\n\n".encode() + got.body)
    parts = [
        (str(part["Content-Range"]), part.get_payload(decode=True))
        for part in message.walk()
        if not part.is_multipart()
    ]
    size = len(tar)
    assert parts == [
        (f"bytes 0-99/{size}", tar[:100]),
        (f"bytes 5000-5099/{size}", tar[5000:5100]),
        (f"bytes {size - 10}-{size - 1}/{size}", tar[-10:]),
    ]


@pytest.mark.parametrize(
    "wanted", ["bytes=9-5", "bytes=x-5", "bytes=", "lines=1-2", "bytes=-", "bytes=\u0661-", "bytes=0-0" + ",1-1" * 64]
)
def test_ranges_that_count_for_nothing(server: Served, wanted: str) -> None:
    assert server.ask("GET", "/models/iris/v2/files/w.bin", {"Range": wanted.encode().decode("latin-1")}).status == 200


@pytest.mark.parametrize("wanted", ["bytes=5000-", "bytes=9999-99999,7000-7001", "bytes=-0"])
def test_ranges_behind_the_end(server: Served, wanted: str) -> None:
    got = server.ask("GET", "/models/iris/v2/files/w.bin", {"Range": wanted})
    assert (got.status, got.headers["Content-Range"]) == (416, "bytes */5000")
    assert server.get("/models/iris/v1/files/empty", Range="bytes=0-").status == 416


def test_conditions(server: Served) -> None:
    path = "/models/iris/v2/files/w.bin"
    head = server.ask("HEAD", path)
    etag, date = head.headers["ETag"], head.headers["Last-Modified"]
    other, old, new = '"other"', "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f"{other}, W/{etag}"}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": other}, 200),
        ({"If-None-Match": other, "If-Modified-Since": new}, 200),
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": old}, 200),
        ({"If-Modified-Since": "nonsense"}, 200),
        ({"If-Match": etag}, 200),
        ({"If-Match": other}, 412),
        ({"If-Match": f"W/{etag}"}, 412),
        ({"If-Unmodified-Since": date}, 200),
        ({"If-Unmodified-Since": old}, 412),
        ({"Range": "bytes=0-3", "If-Range": etag}, 206),
        ({"Range": "bytes=0-3", "If-Range": other}, 200),
        ({"Range": "bytes=0-3", "If-Range": f"W/{etag}"}, 200),
        ({"Range": "bytes=0-3", "If-Range": date}, 206),
        ({"Range": "bytes=0-3", "If-Range": old}, 200),
    ):
        got = server.ask("GET", path, headers)
        assert got.status == status, headers
        assert status != 304 or (got.body == b"" and got.headers["ETag"] == etag)


def test_no_file_of_a_model_is_active(server: Served) -> None:
    page = server.get("/models/iris/v1/files/page.html")
    assert page.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in page.headers["Content-Security-Policy"]
    assert server.get("/models/iris/v1/files/w.bin").headers["Content-Disposition"].startswith("attachment")


def test_odd_names(server: Served) -> None:
    listing = server.get("/models/iris/v1/files/").body.decode()
    assert "<i>" not in listing
    path = "/models/iris/v1/files/" + quote('a "b" <i>\'ü%41.txt', safe="")
    got = server.get(path)
    assert got.body == b"odd"
    assert got.headers["Content-Disposition"] == (
        "inline; filename=\"a _b_ _i____41.txt\"; filename*=UTF-8''a%20%22b%22%20%3Ci%3E%27%C3%BC%2541.txt"
    )


def test_its_own_files(server: Served) -> None:
    metrics = server.get("/.bentofs/metrics")
    assert metrics.headers["Cache-Control"] == "no-store"
    assert 'bentofs_read_bytes_total{kind="tar"}' in metrics.body.decode() or b"bentofs_models" in metrics.body
    assert b"curl" in server.get("/README.txt").body


def test_tools_resume(server: Served, tar: bytes, tmp_path: Path) -> None:
    url = f"{server.url}{TAR}"
    for name, command in (
        ("curl", ["curl", "-sS", "-C", "-", "-o", "curl", url]),
        ("wget", ["wget", "-q", "-c", "-O", "wget", url]),
    ):
        (tmp_path / name).write_bytes(tar[: len(tar) // 3])
        run(*command, cwd=tmp_path)
        assert (tmp_path / name).read_bytes() == tar, name
        run(*command, cwd=tmp_path)  # nothing is left to do
        assert (tmp_path / name).read_bytes() == tar, name
    run("aria2c", "-q", "-x4", "-s4", "-k1M", "-d", tmp_path, "-o", "aria2", url)
    assert (tmp_path / "aria2").read_bytes() == tar
    run("curl", "-sSfOJ", f"{server.url}/models/iris/latest.zip", cwd=tmp_path)
    assert (tmp_path / "iris-v2.zip").is_file()


def test_a_model_that_is_replaced_ends_a_download_short(server: Served, store: Path, tmp_path: Path) -> None:
    """No byte of another model follows those of the first, and a resumed download begins anew."""
    big = os.urandom(1 << 20) * 32
    make_model(store, "gone:v1", {"w.bin": big})
    wait_until_settled(store / "gone")
    target = "/models/gone/v1/gone-v1.tar"
    wait_until(lambda: server.ask("HEAD", target).status == 200, 10, "the model is seen")
    export_model("gone:v1", str(tmp_path / "gone.tar"), store=str(store))
    tar = (tmp_path / "gone.tar").read_bytes()
    with socket.create_connection(server.address, timeout=30) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        got = sock.recv(1 << 16)
        (store / "gone/v1/w.bin").write_bytes(os.urandom(1 << 20) * 32)
        while part := sock.recv(1 << 20):
            got += part
    head, _, body = got.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(tar)}".encode() in head
    assert len(body) < len(tar)
    assert tar.startswith(body)
    server.wait_for_log("ended short: ")
    etag = next(line.split(b": ")[1] for line in head.splitlines() if line.startswith(b"ETag")).decode()
    remove_model(store, "gone:v1")
    make_model(store, "gone:v1", {"w.bin": b"new"})
    wait_until(lambda: server.ask("HEAD", target).headers["ETag"] not in (None, etag), 20, "the new model is seen")
    again = server.get(target, Range=f"bytes={len(body)}-", If_Range=etag)
    assert again.status == 200
    assert b"new" in again.body


def test_a_download_that_nobody_takes_stops_no_other(server: Served, tar: bytes) -> None:
    stalled = [socket.create_connection(server.address, timeout=30) for _ in range(40)]
    try:
        for sock in stalled:
            sock.sendall(f"GET {TAR} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert server.get(TAR).body == tar
    finally:
        for sock in stalled:
            sock.close()


def test_status_lists_the_server(server: Served) -> None:
    told = run(*server.command()[:3], "status", server.url, env=server.environment).stdout
    assert told.startswith(f"{server.url}/\n")
    assert "engine http" in told
    assert f"pid {server.process.pid}" in told


def test_an_address_that_is_taken_is_a_sentence(server: Served) -> None:
    port = server.address[1]
    done = subprocess.run(
        [*server.command()[:-1], f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f"bentofs: 127.0.0.1:{port} cannot be served: Address already in use\n")


def test_its_life(store: Path, tmp_path: Path) -> None:
    """A service manager hears of it, FUSE is not needed, and a signal ends it while clients read."""
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.settimeout(60)
        with (
            Served(store, tmp_path, "--read-only", environment={"NOTIFY_SOCKET": str(place)}) as server,
            socket.create_connection(server.address, timeout=30) as sock,
        ):
            told = manager.recv(4096).decode()
            assert told.splitlines()[0] == "READY=1"
            assert server.url in told
            assert server.get("/incoming/").status == 404
            assert "libfuse" not in Path(f"/proc/{server.process.pid}/maps").read_text()
            sock.sendall(f"GET {TAR} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert sock.recv(10) == b"HTTP/1.1 2"
        assert manager.recv(4096).decode().startswith("STOPPING=1")
