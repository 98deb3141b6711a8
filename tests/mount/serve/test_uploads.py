"""`bentofs serve`: PUT and POST into incoming/, by hand and by the tools that people upload with."""

import contextlib
import http.client
import json
import os
import re
import select
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import make_model, run, wait_until
from tests.incoming import area_of, made_tar, same, staged, tar_of
from tests.serving import Served

LARGE = 64 << 10  # bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("server")
    store = base / "models"
    make_model(store, "taken:v1", {"w": b"other"})
    with Served(store, base) as server:
        yield server
        assert staged(area_of(store)) == []


@pytest.fixture
def tar(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A model that no other test has."""
    name = request.node.name.partition("[")[0].replace("test_", "")
    return made_tar(tmp_path, f"{name.replace('_', '-')}:v1", {"w": os.urandom(300_000), "d/x": b"x"})


def put(server: Served, name: str, content: bytes, **headers: str) -> tuple[int, str, Any]:
    """PUT a file. Return the status, the reason, and the body: JSON's value, or a text."""
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    got = server.ask("PUT", f"/incoming/{name}", given, content)
    text = got.body.decode()
    return got.status, got.reason, json.loads(text) if got.status < 300 and text else text.strip()


def test_imported(server: Served, tar: Path, tmp_path: Path) -> None:
    status, _, told = put(server, "imported.tar", tar.read_bytes())
    assert status == 201
    assert told == {"name": "imported.tar", "tag": "imported:v1", "outcome": "imported", "size": tar.stat().st_size}
    same(Path(server.store) / "imported/v1", tmp_path / "made/imported/v1")
    status, _, told = put(server, "again.tar", tar.read_bytes())
    assert (status, told["outcome"], told["tag"]) == (200, "unchanged", "imported:v1")
    head = server.ask("HEAD", "/incoming/imported.tar")
    assert (head.status, head.headers["Content-Length"]) == (200, str(tar.stat().st_size))
    wait_until(lambda: server.ask("HEAD", "/models/imported/v1/imported-v1.zip").status == 200, 10, "it is shown")


def test_refused(server: Served, tmp_path: Path) -> None:
    server.expect_log("was not imported: ")
    taken = made_tar(tmp_path, "taken:v1").read_bytes()
    whole = made_tar(tmp_path, "cut:v1").read_bytes()
    (tmp_path / "d").mkdir()
    (tmp_path / "d/w").write_bytes(b"w" * 20_000)
    no_model = tar_of(tmp_path / "d", tmp_path / "no.tar")
    for name, content, want, sentence in (
        ("taken.tar", taken, 409, "taken:v1 is in the store with other content (w differs)"),
        ("cut.tar", whole[:5000], 422, "the archive is cut short"),
        ("no-model.tar", no_model.read_bytes(), 422, "the archive holds no model"),
        ("text", b"no archive at all\n" * 500, 415, "this is an unknown kind of file"),
        ("\u00fc.txt", b"no archive at all\n" * 500, 415, "this is an unknown kind of file"),
    ):
        path = name.replace("\u00fc", "%C3%BC")
        status, reason, told = put(server, path, content)
        assert status == want, told
        assert sentence in told, told
        assert reason == told[:200]
        note = server.get(f"/incoming/{path}.error").body.decode()
        assert note.startswith(f"{name} was not imported: {told} (request ")
        head = server.ask("HEAD", f"/incoming/{path}")
        assert int(head.headers["Content-Length"]) < len(content)  # tools send it again
        assert server.ask("GET", f"/incoming/{path}").headers["Content-Type"].startswith(("text/plain", "application/"))


def answer_before_the_end(server: Served, name: str, content: bytes, *, is_chunked: bool) -> tuple[int, str, str]:
    """Send an upload that begins so and is much longer, until there is an answer. Return its status, reason and
    body."""
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(content) + (1 << 30)}"
    with socket.create_connection(server.address, timeout=60) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(f"PUT /incoming/{name} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n\r\n".encode())
        while not select.select([sock], [], [], 0)[0]:
            part, content = content[:LARGE] or bytes(LARGE), content[LARGE:]
            sock.sendall(b"%x\r\n%s\r\n" % (len(part), part) if is_chunked else part)
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status, response.reason, response.read().decode().strip()
    raise AssertionError("the server closed the connection without an answer")


@pytest.mark.parametrize("is_chunked", [False, True])
def test_too_big(tmp_path: Path, *, is_chunked: bool) -> None:
    """The answer does not wait for the rest of the body."""
    (tmp_path / "models").mkdir()
    content = made_tar(tmp_path, "big:v1", {"w": bytes(3_000_000)}).read_bytes()
    with Served(tmp_path / "models", tmp_path, "--max-expanded", "1M") as server:
        server.expect_log("big.tar was not imported: ", 1)
        got = answer_before_the_end(server, "big.tar", content, is_chunked=is_chunked)
        sentence = "the archive expands to more than 1,048,576 bytes: --max-expanded allows more"
        assert got == (413, sentence, sentence)
        note = server.get("/incoming/big.tar.error").body.decode()
        assert note.startswith(f"big.tar was not imported: {sentence} (request ")
        assert os.listdir(server.store) == []


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    """It is told before the body if its length is known, else as soon as the room is used up."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "bentofs-test", disk)
    try:
        (disk / "models").mkdir()
        content = made_tar(tmp_path, "full:v1", {"w": os.urandom(40 << 20)}).read_bytes()
        small = made_tar(tmp_path, "small:v1").read_bytes()
        with Served(disk / "models", tmp_path) as server:
            server.allow_log("full.tar was not imported: |No space left|no note of it|record of imports")
            declared = {"Content-Length": str(len(content)), "Expect": "100-continue"}
            got = server.ask("PUT", "/incoming/full.tar", declared)
            assert (got.status, got.body.decode().strip()) == (507, got.reason)
            assert "no room left" in got.reason
            status, reason, body = answer_before_the_end(server, "full.tar", content, is_chunked=True)
            assert (status, body) == (507, reason)
            assert re.search("no room left|[Nn]o space left", reason)
            assert server.ask("DELETE", "/incoming/full.tar").status in (204, 404)
            server.allow_log("small.tar was not imported: ")
            wait_until(lambda: put(server, "small.tar", small)[0] == 201, 30, "the room is given back")
            assert os.listdir(server.store) == ["small"]
    finally:
        run("umount", "-l", disk)


def test_a_mended_upload_is_imported(server: Served, tar: Path) -> None:
    server.expect_log("mended.tar was not imported: ")
    assert put(server, "mended.tar", tar.read_bytes()[:7000])[0] == 422
    assert put(server, "mended.tar", tar.read_bytes())[0] == 201
    assert server.get("/incoming/mended.tar.error").status == 404


def test_nothing_is_neither_imported_nor_refused(server: Served, tar: Path) -> None:
    assert put(server, "nothing.tar", b"")[0] == 201
    assert put(server, "nothing.tar", b"")[0] == 204
    wait_until(lambda: server.ask("HEAD", "/incoming/nothing.tar").status == 200, 5, "it is there")
    assert server.ask("HEAD", "/incoming/nothing.tar").headers["Content-Length"] == "0"
    assert put(server, "nothing.tar", tar.read_bytes())[0] == 201


@pytest.mark.parametrize(
    ("path", "want"),
    [
        ("/incoming/", 405),
        ("/incoming", 405),
        ("/incoming/no/such/folder.tar", 409),
        ("/models/iris/v1/x", 405),
        ("/README.txt", 405),
        ("/.page/x", 405),
        ("/incoming/%2e%2e/x.tar", 400),
        ("/incoming/a%2fb.tar", 400),
        ("/incoming/" + "a" * 300, 414),
    ],
)
def test_places_that_take_nothing(server: Served, path: str, want: int) -> None:
    assert server.ask("PUT", path, body=b"x" * 100).status == want


def test_bodies_that_are_refused(server: Served, tar: Path) -> None:
    content = tar.read_bytes()
    assert put(server, "a.tar", content, Content_Encoding="gzip")[0] == 415
    assert raw_put(server, "a.tar", "Transfer-Encoding: gzip, chunked", b"0\r\n\r\n") == 501
    assert put(server, "a.tar", content, Content_Range="bytes x")[0] == 400
    assert put(server, "a.tar", content, Content_Range="bytes 0-5/9")[0] == 400
    assert put(server, "a.tar", content, Content_Range=f"bytes 5-{len(content) + 4}/5")[0] == 400
    status, _, told = put(server, "a.tar", content, Content_Range=f"bytes 7-{len(content) + 6}/{len(content) + 7}")
    assert (status, told) == (416, "only 0 bytes have come: send the rest from byte 0 on")
    assert server.get("/incoming/a.tar").status == 404
    got = server.ask("PUT", "/incoming/a.tar", {"Content-Length": str(1 << 60), "Expect": "100-continue"})
    assert got.status == 507
    assert "no room left" in got.reason


def raw_put(server: Served, name: str, header: str, body: bytes) -> int:
    """PUT a body as it is, and return the status."""
    with socket.create_connection(server.address, timeout=60) as sock:
        sock.sendall(f"PUT /incoming/{name} HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode() + body)
        return int(sock.recv(1000).split()[1])


def test_from_a_pipe(server: Served, tar: Path) -> None:
    """Chunked, without a length."""
    with tar.open("rb") as content:
        told = run("curl", "-sS", "--fail-with-body", "-T", "-", f"{server.url}/incoming/p.tar", stdin=content).stdout
    assert json.loads(told)["outcome"] == "imported"


def test_wget_shows_the_sentence(server: Served, tar: Path, tmp_path: Path) -> None:
    command = ["wget", "-q", "-S", "-O", "-", "--method=PUT"]
    done = run(*command, f"--body-file={tar}", f"{server.url}/incoming/wget.tar")
    assert json.loads(done.stdout)["tag"] == "wget-shows-the-sentence:v1"
    server.expect_log("bad was not imported: ")
    (tmp_path / "bad").write_bytes(b"no archive\n" * 200_000)
    failed = subprocess.run(
        [*command, f"--body-file={tmp_path / 'bad'}", f"{server.url}/incoming/bad"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert failed.returncode == 8
    assert "415 this is an unknown kind of file, not an archive of a model" in failed.stderr


def test_curl_shows_the_sentence(server: Served, tmp_path: Path) -> None:
    server.expect_log("big was not imported: ")
    (tmp_path / "big").write_bytes(b"no archive\n" * 3_000_000)
    done = subprocess.run(
        ["curl", "-sS", "--fail-with-body", "-T", tmp_path / "big", f"{server.url}/incoming/"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 22
    assert done.stdout.startswith("this is an unknown kind of file")


def test_interrupted_and_resumed(server: Served, tar: Path) -> None:
    """A part is kept, and is never taken for the whole: also if it ends where an archive could end."""
    content = tar.read_bytes()
    server.expect_log("resumed.tar was not imported: only 200,000 of its ")
    with socket.create_connection(server.address, timeout=30) as sock:
        head = f"PUT /incoming/resumed.tar HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        sock.sendall(head.encode() + content[:200_000])
        wait_until(lambda: server.ask("HEAD", "/incoming/resumed.tar").status == 200, 10, "it is begun")
    server.wait_for_log("resumed.tar was not imported: only 200,000 of its ")
    note = server.get("/incoming/resumed.tar.error").body.decode()
    assert "send the rest from byte 200000 on (curl -C 200000 -T FILE)" in note
    shown = int(server.ask("HEAD", "/incoming/resumed.tar").headers["Content-Length"])
    assert 199_000 < shown < 200_000
    told = run("curl", "-sS", "-f", "-C", shown, "-T", tar, f"{server.url}/incoming/resumed.tar").stdout
    assert json.loads(told) == {
        "name": "resumed.tar",
        "tag": "interrupted-and-resumed:v1",
        "outcome": "imported",
        "size": len(content),
    }
    assert server.get("/incoming/resumed.tar.error").status == 404


def test_in_parts(server: Served, tar: Path) -> None:
    content = tar.read_bytes()
    size, third = len(content), len(content) // 3
    for begin, end, status in ((0, third, 202), (third, 2 * third, 202), (2 * third, size, 201)):
        got, _, told = put(server, "parts.tar", content[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{size}")
        assert got == status, told
    assert told["tag"] == "in-parts:v1"


def test_whole_but_in_a_range(server: Served, tar: Path) -> None:
    told = run("curl", "-sS", "-f", "-C", "-", "-T", tar, f"{server.url}/incoming/whole.tar").stdout
    assert json.loads(told)["outcome"] == "imported"


def test_form(server: Served, tar: Path, tmp_path: Path) -> None:
    server.expect_log("note.txt was not imported: ")
    (tmp_path / "note.txt").write_text("hello\n" * 100)
    fields = ["-F", "comment=hello", "-F", f"one=@{tar}", "-F", f"two=@{tmp_path / 'note.txt'}"]
    told = json.loads(run("curl", "-sS", *fields, f"{server.url}/incoming/").stdout)["uploads"]
    assert [(each["name"], each["status"]) for each in told] == [(tar.name, 201), ("note.txt", 415)]
    assert told[0]["tag"] == "form:v1"
    assert "not an archive of a model" in told[1]["error"]
    page = run("curl", "-sS", "-H", "Accept: text/html", "-F", f"a=@{tar};filename=<b>.tar", f"{server.url}/incoming/")
    assert "<bdi>&lt;b&gt;.tar</bdi>" in page.stdout
    assert '<a href="/models/form/v1/">form:v1</a> unchanged' in page.stdout
    (tmp_path / "long").write_bytes(b"--x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n--x--\r\n")
    long = ["-H", "Content-Type: multipart/form-data; boundary=x", "--data-binary", f"@{tmp_path / 'long'}"]
    for fields in (long, ["-d", "x=1"], ["-F", "x=1"], ["-F", f"x=@{tar};filename=.."]):
        command = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", *fields, f"{server.url}/incoming/"]
        assert run(*command).stdout == "400"


def test_a_file_of_checksums(server: Served, tar: Path) -> None:
    assert put(server, tar.name, tar.read_bytes())[0] == 201
    right = run("sha256sum", tar.name, cwd=tar.parent).stdout
    assert put(server, f"{tar.name}.sha256", right.encode())[0] == 201
    server.expect_log(f"{tar.name}.sha256 was not imported: ")
    status, _, told = put(server, f"{tar.name}.sha256", ("0" * 64 + right[64:]).encode())
    assert status == 422, told


def test_the_end_of_the_server_keeps_an_upload(tar: Path, tmp_path: Path) -> None:
    """It is no refusal, and the next server has the bytes."""
    store = tmp_path / "models"
    store.mkdir()
    content = tar.read_bytes()
    server = Served(store, tmp_path)
    with server, socket.create_connection(server.address, timeout=30) as sock:
        head = f"PUT /incoming/kept.tar HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        sock.sendall(head.encode() + content[:100_000])
        wait_until(lambda: server.ask("HEAD", "/incoming/kept.tar").status == 200, 10, "it is begun")
    with server:
        shown = server.ask("HEAD", "/incoming/kept.tar").headers["Content-Length"]
        assert 99_000 < int(shown) < 100_000
        assert server.get("/incoming/kept.tar.error").status == 404
        run("curl", "-sS", "-f", "-C", shown, "-T", tar, f"{server.url}/incoming/kept.tar")
        assert (store / "the-end-of-the-server-keeps-an-upload/v1/w").is_file()
