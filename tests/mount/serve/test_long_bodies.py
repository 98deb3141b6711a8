"""`bentofs serve`: bodies of 4 MiB and more, which the server takes from the connection without aiohttp."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import run, wait_until
from tests.incoming import area_of, made_tar, same, staged
from tests.serving import Served

_SIZE = 9_000_001  # bytes of a model's file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    store = tmp_path / "models"
    store.mkdir()
    with Served(store, tmp_path, own_process=True) as server:
        yield server
        assert staged(area_of(store)) == []


def _head(name: str, size: int) -> bytes:
    return f"PUT /incoming/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()


def _begun(server: Served, name: str) -> None:
    wait_until(lambda: server.ask("HEAD", f"/incoming/{name}").status == 200, 10, "it is begun")


@pytest.mark.parametrize("first", [0, 1000, 300_000, 4_500_000])
def test_each_byte_comes_in_wherever_the_first_packet_ends(server: Served, tmp_path: Path, first: int) -> None:
    tar = made_tar(tmp_path, "m:v1", {"w": os.urandom(_SIZE)})
    content = tar.read_bytes()
    with socket.create_connection(server.address, timeout=60) as sock:
        sock.sendall(_head("m.tar", len(content)) + content[:first])
        if first:
            _begun(server, "m.tar")
        for at in range(first, len(content), 700_001):
            sock.sendall(content[at : min(at + 700_001, len(content))])
        answer = b"".join(iter(lambda: sock.recv(1 << 16), b""))  # to the end: the connection is closed
    head, _, told = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201 ")
    assert b"\r\nConnection: close" in head
    assert json.loads(told) == {"name": "m.tar", "tag": "m:v1", "outcome": "imported", "size": len(content)}
    same(Path(server.store) / "m/v1", tmp_path / "made/m/v1")


def test_a_client_that_pauses_and_goes_on(server: Served, tmp_path: Path) -> None:
    """A thread that receives gives the connection back to the event loop, with a part of a block."""
    content = made_tar(tmp_path, "m:v1", {"w": os.urandom(_SIZE)}).read_bytes()
    step = 1_500_001
    with socket.create_connection(server.address, timeout=60) as sock:
        sock.sendall(_head("m.tar", len(content)))
        for at in range(0, len(content), step):
            sock.sendall(content[at : at + step])
            whole = min(at + step, len(content) - 1) >> 20 << 20  # blocks that can be written

            def is_written(whole: int = whole) -> bool:
                return int(server.ask("HEAD", "/incoming/m.tar").headers["Content-Length"]) >= whole - 600

            if at + step < len(content):
                wait_until(is_written, 20, "its blocks are written")
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 201 ")
    same(Path(server.store) / "m/v1", tmp_path / "made/m/v1")


def test_no_connection_stays_open(server: Served, tmp_path: Path) -> None:
    """Not after an import of many blocks, a refusal within the body, and a client that has gone."""
    tar = made_tar(tmp_path, "m:v1", {"w": os.urandom(4 * _SIZE)})
    no_tar = tmp_path / "no.tar"
    no_tar.write_bytes(os.urandom(4 * _SIZE))
    server.expect_log("no.tar was not imported: ")
    server.expect_log("gone.tar was not imported: only ")
    before = _connections(server)
    run("curl", "-sS", "-f", "-T", tar, f"{server.url}/incoming/")
    same(Path(server.store) / "m/v1", tmp_path / "made/m/v1")
    refused = run("curl", "-sS", "-w", "%{http_code}", "-o", os.devnull, "-T", no_tar, f"{server.url}/incoming/")
    assert refused.stdout == "415"
    with socket.create_connection(server.address, timeout=60) as sock:
        sock.sendall(_head("gone.tar", _SIZE) + tar.read_bytes()[:5_000_001])
        _begun(server, "gone.tar")
    server.wait_for_log("gone.tar was not imported: only ", 20)
    wait_until(lambda: _connections(server) == before, 10, "they are closed")
    wait_until(lambda: staged(area_of(Path(server.store))) == [], 20, "the staging has ended")


def test_refused_bodies_leave_no_block_in_memory(server: Served) -> None:
    """An upload keeps the error that says why it was refused, and Python collects cyclic garbage seldom."""
    server.expect_log("no.tar was not imported: ")
    taken = []
    for count in (5, 25):
        for _ in range(count):
            assert server.ask("PUT", "/incoming/no.tar", body=b"no archive" * 500_000).status == 415
        taken.append(_memory(server))
    assert taken[1] - taken[0] < 12 << 20


def _memory(server: Served) -> int:
    """Return the bytes of memory that the server has taken for itself."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))


def _connections(server: Served) -> int:
    """Count the server's sockets."""
    folder = f"/proc/{server.process.pid}/fd"
    count = 0
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            count += os.readlink(f"{folder}/{name}").startswith("socket:")
    return count


@pytest.mark.parametrize("came", [200_000, 5_000_001])
def test_what_came_is_kept_when_the_client_goes(server: Served, tmp_path: Path, came: int) -> None:
    tar = made_tar(tmp_path, "m:v1", {"w": os.urandom(_SIZE)})
    content = tar.read_bytes()
    server.expect_log(f"m.tar was not imported: only {came:,} of its ")
    with socket.create_connection(server.address, timeout=60) as sock:
        sock.sendall(_head("m.tar", len(content)) + content[:came])
        _begun(server, "m.tar")
    server.wait_for_log(f"m.tar was not imported: only {came:,} of its ", 20)
    shown = int(server.ask("HEAD", "/incoming/m.tar").headers["Content-Length"])
    assert came - 600 < shown < came
    run("curl", "-sS", "-f", "-C", shown, "-T", tar, f"{server.url}/incoming/m.tar")
    same(Path(server.store) / "m/v1", tmp_path / "made/m/v1")


def test_what_came_is_kept_when_the_server_ends(tmp_path: Path) -> None:
    store = tmp_path / "models"
    store.mkdir()
    tar = made_tar(tmp_path, "m:v1", {"w": os.urandom(_SIZE)})
    content, came = tar.read_bytes(), 5_000_001
    server = Served(store, tmp_path)
    with server, socket.create_connection(server.address, timeout=60) as sock:
        sock.sendall(_head("m.tar", len(content)) + content[:came])
        _begun(server, "m.tar")
        wait_until(lambda: int(server.ask("HEAD", "/incoming/m.tar").headers["Content-Length"]) > 4_000_000, 10, "")
    with server:
        shown = int(server.ask("HEAD", "/incoming/m.tar").headers["Content-Length"])
        assert 4_000_000 < shown < came
        run("curl", "-sS", "-f", "-C", shown, "-T", tar, f"{server.url}/incoming/m.tar")
        same(store / "m/v1", tmp_path / "made/m/v1")


def test_several_at_once_and_other_requests_between_them(server: Served, tmp_path: Path) -> None:
    tars = [made_tar(tmp_path / str(n), f"m{n}:v1", {"w": os.urandom(_SIZE)}) for n in range(3)]
    urls = [f"{server.url}/incoming/{tar.name}" for tar in tars]
    pairs = [word for tar, url in zip(tars, urls, strict=True) for word in ("-T", tar, url)]
    run("curl", "-sS", "-f", "--parallel", "--parallel-immediate", *pairs)
    run("curl", "-sS", "-f", "-T", tars[0], urls[0], "-o", os.devnull, f"{server.url}/models/")  # one after the other
    for number in range(3):
        same(Path(server.store) / f"m{number}/v1", tmp_path / f"{number}/made/m{number}/v1")
