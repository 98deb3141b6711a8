"""`bentofs serve` by WebDAV: litmus, and the clients that people use."""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.harness import ended, make_model, mountpoints, run, unmount_lazily, wait_until
from tests.incoming import area_of, made, made_tar, same, staged
from tests.serving import Served
from tests.waiting import wait_until_settled

RCLONE = str(Path(sys.executable).parent / "rclone")
DAV = "{DAV:}"
# litmus 0.13 passes all of its tests in incoming/, the only place where things can be changed. Its files have no suffix
# of an archive and lie in a directory, so none is imported.
SUITES = {"basic": 16, "copymove": 13, "props": 30, "locks": 41, "http": 4}

LOCK_INFO = (
    b'<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype><D:owner><D:href>someone</D:href></D:owner></D:lockinfo>"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tmp_path_factory.mktemp("server")
    store = base / "models"
    store.mkdir()
    make_model(store, "iris:v1", {"w.bin": os.urandom(3_000_000), "ü <x>.txt": b"x"}, labels={"stage": "prod"})
    make_model(store, "iris:v2", {"w.bin": b"2" * 5000})
    wait_until_settled(store)
    with Served(store, base, "--by-label", "--settle", "1") as server:
        yield server
        assert staged(area_of(store)) == []


def propfind(server: Served, path: str, depth: str = "1", body: str = "") -> dict[str, ElementTree.Element]:
    """Return the responses by their hrefs."""
    got = server.ask("PROPFIND", path, {"Depth": depth}, body.encode())
    assert got.status == 207, got
    return {str(each.findtext(f"{DAV}href")): each for each in ElementTree.fromstring(got.body)}


def test_litmus(server: Served, tmp_path: Path) -> None:
    done = subprocess.run(
        ["litmus", "-k", f"{server.url}/incoming/"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = re.findall(r"summary for `(\w+)': of (\d+) tests run: (\d+) passed", done.stdout)
    assert {name: int(passed) for name, _, passed in found} == SUITES, done.stdout
    assert done.returncode == 0
    assert "WARNING" not in done.stdout


def test_sizes_are_those_of_the_files(server: Served) -> None:
    for folder in ("/models/iris/v1/", "/models/iris/", "/models/iris/v1/files/", "/by-label/stage/prod/iris/v1/"):
        found = propfind(server, folder)
        assert folder in found
        for href, each in found.items():
            length = each.findtext(f".//{DAV}getcontentlength")
            head = server.ask("HEAD", href)
            assert head.status == 200, href
            if not href.endswith("/"):
                assert head.headers["Content-Length"] == length, href
                assert head.headers["ETag"] == each.findtext(f".//{DAV}getetag")
                assert head.headers["Last-Modified"] == each.findtext(f".//{DAV}getlastmodified")
    assert "/models/iris/v1/files/%C3%BC%20%3Cx%3E.txt" in propfind(server, "/models/iris/v1/files")


def test_propfind(server: Served) -> None:
    root = propfind(server, "/", "1")
    assert set(root) == {"/", "/README.txt", "/models/", "/by-format/", "/by-label/", "/incoming/"}
    wanted = '<propfind xmlns="DAV:"><prop><resourcetype/><x xmlns="urn:none"/></prop></propfind>'
    (only,) = propfind(server, "/models/iris", "0", wanted).values()
    assert [part.findtext(f"{DAV}status") for part in only.iter(f"{DAV}propstat")] == [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 404 Not Found",
    ]
    names = '<propfind xmlns="DAV:"><propname/></propfind>'
    (only,) = propfind(server, "/README.txt", "infinity", names).values()
    assert only.find(f".//{DAV}getcontentlength") is not None
    assert only.findtext(f".//{DAV}getcontentlength") in ("", None)
    infinite = server.ask("PROPFIND", "/models/", {}, b"")
    assert infinite.status == 403
    assert b"propfind-finite-depth" in infinite.body


@pytest.mark.parametrize(
    "body",
    [
        b"<propfind",
        b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><propfind xmlns='DAV:'><allprop/></propfind>",
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"),
        b"<?xml version='1.0' encoding='no-such'?><a/>",
        b"<a xmlns='DAV:'/>",
        b"<propfind xmlns='DAV:'>" + b"<a/>" * 3000 + b"</propfind>",
        b"<propfind xmlns='DAV:'><prop>" + b"x" * 300_000,
    ],
)
def test_hostile_xml(server: Served, body: bytes) -> None:
    assert server.ask("PROPFIND", "/", {"Depth": "0"}, body).status == 400


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK"])
def test_the_rest_is_read_only(server: Served, method: str) -> None:
    headers = {"Destination": f"{server.url}/incoming/x"}
    for path in ("/models/iris/v2/files/w.bin", "/models/iris/", "/new", "/"):
        assert server.ask(method, path, headers, b"").status == 405, path
    assert server.ask("OPTIONS", "/models/").headers["Allow"] == "OPTIONS, GET, HEAD, PROPFIND"
    options = server.ask("OPTIONS", "/incoming/x")
    assert (options.headers["DAV"], options.headers["MS-Author-Via"]) == ("1, 2", "DAV")
    assert method in options.headers["Allow"]
    assert server.get("/models/iris/v2/files/w.bin").status == 200


def test_changes_that_are_refused(server: Served) -> None:
    for method, path, headers, want in (
        ("DELETE", "/incoming/", {}, 403),
        ("DELETE", "/incoming/no", {}, 404),
        ("MKCOL", "/incoming/", {}, 405),
        ("MKCOL", "/incoming/no/no", {}, 409),
        ("MKCOL", "/incoming" + "/d" * 150, {}, 414),
        ("COPY", "/incoming/no", {"Destination": "/incoming/x"}, 404),
        ("MOVE", "/incoming/no", {"Destination": "/models/x"}, 403),
        ("MOVE", "/incoming/no", {"Destination": "/incoming/../x"}, 400),
        ("MOVE", "/incoming/no", {"Destination": "http://evil.example/incoming/x"}, 400),
        ("MOVE", "/incoming/no", {}, 400),
        ("LOCK", "/incoming/no", {"If": "nonsense"}, 400),
    ):
        got = server.ask(method, path, {"Content-Length": "0", **headers}, b"" if method != "LOCK" else b"<a/>"[:0])
        assert got.status in (want, 412 if method == "LOCK" else want), (method, path, got)


def test_a_move_to_the_final_name_imports(server: Served, tmp_path: Path) -> None:
    tar = made_tar(tmp_path, "moved:v1", {"w": b"w" * 20_000}).read_bytes()
    assert server.ask("PUT", "/incoming/moved.tar.part", body=tar).status == 201
    assert not (Path(server.store) / "moved").exists()
    moved = server.ask("MOVE", "/incoming/moved.tar.part", {"Destination": f"{server.url}/incoming/moved.tar"})
    assert moved.status == 201
    assert (Path(server.store) / "moved/v1/w").is_file()
    (entry,) = propfind(server, "/incoming/moved.tar", "0").values()
    assert entry.findtext(f".//{DAV}getcontentlength") == str(len(tar))
    server.expect_log("cut.tar was not imported: ")
    assert server.ask("PUT", "/incoming/cut.part", body=tar[:6000]).status == 201
    refused = server.ask("MOVE", "/incoming/cut.part", {"Destination": "/incoming/cut.tar"})
    assert refused.status == 422
    assert "cut short" in refused.reason


def test_a_locked_name(server: Served, tmp_path: Path) -> None:
    """Lock a free name, write it, unlock it, as Finder, Explorer and davfs2 do. The empty file is no upload."""
    tar = made_tar(tmp_path, "locked:v1").read_bytes()
    locked = server.ask("LOCK", "/incoming/locked.tar", {"Depth": "0", "Timeout": "Second-100"}, LOCK_INFO)
    assert locked.status == 201
    token = locked.headers["Lock-Token"]
    assert server.ask("PUT", "/incoming/locked.tar", body=tar).status == 423
    assert server.ask("DELETE", "/incoming/locked.tar").status == 423
    assert server.ask("LOCK", "/incoming/locked.tar", {"Depth": "0"}, LOCK_INFO).status == 423
    assert server.ask("LOCK", "/incoming/locked.tar", {"If": f"({token})"}, b"").status == 200
    assert server.ask("PUT", "/incoming/locked.tar", {"If": f"({token})"}, tar).status == 201
    assert server.ask("UNLOCK", "/incoming/locked.tar", {"Lock-Token": token}).status == 204
    assert server.ask("UNLOCK", "/incoming/locked.tar", {"Lock-Token": token}).status == 409
    assert server.get("/incoming/locked.tar.error").status == 404


def test_what_explorer_sends(server: Served, tmp_path: Path) -> None:
    """Microsoft-WebDAV-MiniRedir: an empty PUT, a lock, its times, the content, and its times again."""
    tar = made_tar(tmp_path, "by-explorer:v1", {"w": b"w" * 20_000}).read_bytes()
    agent = {"User-Agent": "Microsoft-WebDAV-MiniRedir/10.0.19045", "translate": "f"}
    times = "".join(
        f"<Z:Win32{name}>Fri, 02 Jan 2026 03:04:05 GMT</Z:Win32{name}>"
        for name in ("CreationTime", "LastAccessTime", "LastModifiedTime")
    )
    attributes = "<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>"
    patch = (
        '<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:">'
        f"<D:set><D:prop>{times}{attributes}</D:prop></D:set></D:propertyupdate>"
    ).encode()
    options = server.ask("OPTIONS", "/", agent)
    assert (options.status, options.headers["MS-Author-Via"]) == (200, "DAV")
    assert {"1", "2"} <= set(options.headers["DAV"].split(", "))
    assert {"PROPFIND", "LOCK", "PUT", "PROPPATCH"} <= set(
        server.ask("OPTIONS", "/incoming").headers["Allow"].split(", ")
    )
    for path, depth in (("/", "0"), ("/incoming", "0"), ("/incoming", "1"), ("/models/iris/v1", "1")):
        assert server.ask("PROPFIND", path, {**agent, "Depth": depth, "Content-Length": "0"}).status == 207
    assert server.ask("PROPFIND", "/desktop.ini", {**agent, "Depth": "0"}).status == 404
    path = "/incoming/by-explorer.tar"
    assert server.ask("PROPFIND", path, {**agent, "Depth": "0", "Content-Length": "0"}).status == 404
    assert server.ask("PUT", path, {**agent, "Content-Length": "0"}).status == 201
    locked = server.ask("LOCK", path, {**agent, "Timeout": "Second-3600"}, LOCK_INFO)
    assert locked.status == 200
    held = {**agent, "If": f"({locked.headers['Lock-Token']})"}
    patched = server.ask("PROPPATCH", path, held, patch)
    assert (patched.status, b"200 OK" in patched.body) == (207, True)
    assert server.ask("HEAD", path, agent).headers["Content-Length"] == "0"
    assert server.ask("PUT", path, held, tar).status == 201
    assert server.ask("PROPPATCH", path, held, patch).status == 207
    assert server.ask("UNLOCK", path, {**agent, "Lock-Token": locked.headers["Lock-Token"]}).status == 204
    (entry,) = propfind(server, path, "0").values()
    assert entry.findtext(f".//{DAV}getcontentlength") == str(len(tar))
    assert (Path(server.store) / "by-explorer/v1/w").is_file()
    server.expect_log("cut-explorer.tar was not imported: ")
    assert server.ask("PUT", "/incoming/cut-explorer.tar", agent, tar[:7000]).status == 422


def test_what_finder_sends(server: Served, tmp_path: Path) -> None:
    """WebDAVFS of macOS: quotas, an empty PUT, a lock, a body in chunks, and the companion files `._x`."""
    tar = made_tar(tmp_path, "by-finder:v1", {"w": b"w" * 20_000}).read_bytes()
    agent = {"User-Agent": "WebDAVFS/3.0.0 (03008000) Darwin/22.6.0 (x86_64)"}
    quotas = b"""<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:quota-available-bytes/>
        <D:quota-used-bytes/><D:quota/><D:quotaused/></D:prop></D:propfind>"""
    assert server.ask("PROPFIND", "/", {**agent, "Depth": "0"}, quotas).status == 207
    listing = server.ask("PROPFIND", "/incoming/", {**agent, "Depth": "1"}, quotas.replace(b"quota/", b"getetag/"))
    assert listing.status == 207
    for name, content in (
        (".DS_Store", os.urandom(6148)),
        ("._by-finder.tar", b"\0\5\x16\7" * 1024),
        ("by-finder.tar", tar),
    ):
        path = f"/incoming/{name}"
        assert server.ask("PROPFIND", path, {**agent, "Depth": "0"}, quotas).status == 404
        assert server.ask("PUT", path, {**agent, "Content-Length": "0"}).status == 201
        locked = server.ask("LOCK", path, {**agent, "Depth": "0", "Timeout": "Second-600"}, LOCK_INFO)
        assert locked.status == 200
        token = locked.headers["Lock-Token"]
        chunks = b"".join(
            b"%x\r\n%s\r\n" % (len(part), part)
            for part in (content[begin : begin + 4096] for begin in range(0, len(content), 4096))
        )
        chunked = {"Transfer-Encoding": "chunked", "X-Expected-Entity-Length": str(len(content))}
        sent = put_raw(server, path, {**agent, **chunked, "If": f"({token})"}, chunks + b"0\r\n\r\n")
        assert sent in (200, 201), (name, sent)
        assert server.ask("UNLOCK", path, {**agent, "Lock-Token": token}).status == 204
        (entry,) = propfind(server, path, "0").values()
        assert entry.findtext(f".//{DAV}getcontentlength") == str(len(content)), name
    assert (Path(server.store) / "by-finder/v1/w").is_file()
    assert not [name for name in propfind(server, "/incoming/") if name.endswith("by-finder.tar.error")]
    for name in (".DS_Store", "._by-finder.tar"):
        assert server.ask("DELETE", f"/incoming/{name}", agent).status == 204


def put_raw(server: Served, path: str, headers: dict[str, str], body: bytes) -> int:
    """PUT a body as it is, and return the status."""
    connection = server.connection()
    try:
        connection.putrequest("PUT", path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


def test_conditions_of_a_put(server: Served) -> None:
    name = "/incoming/folder/conditions.txt"
    assert server.ask("MKCOL", "/incoming/folder").status == 201
    assert server.ask("PUT", name, {"If-None-Match": "*"}, b"one").status == 201
    assert server.ask("PUT", name, {"if-none-match": "*"}, b"two").status == 412
    etag = server.ask("HEAD", name).headers["ETag"]
    assert server.ask("PUT", name, {"If-Match": etag}, b"three").status == 200
    assert server.ask("PUT", name, {"if-match": etag}, b"four").status == 412
    assert server.get(name).body == b"three"


def rclone(server: Served, *arguments: object) -> "subprocess.CompletedProcess[str]":
    remote = ["--webdav-url", server.url, "--config", "/dev/null", "--retries", "1", "--low-level-retries", "1"]
    return subprocess.run(
        [RCLONE, *map(str, arguments), *remote], capture_output=True, text=True, timeout=120, check=False
    )


def test_rclone(server: Served, tmp_path: Path) -> None:
    got = rclone(server, "copy", ":webdav:by-format", tmp_path / "got")
    assert got.returncode == 0, got.stderr
    assert (tmp_path / "got/tar/iris/iris-v1.tar").read_bytes() == server.get("/models/iris/v1/iris-v1.tar").body
    assert (tmp_path / "got/folder/iris/v1/ü <x>.txt").read_bytes() == b"x"
    tar = made_tar(tmp_path, "by-rclone:v1", {"w": b"w" * 20_000})
    sent = rclone(server, "copy", tar, ":webdav:incoming")
    assert sent.returncode == 0, sent.stderr
    assert (Path(server.store) / "by-rclone/v1/w").is_file()
    server.expect_log("bad.tar was not imported: ")
    (tmp_path / "bad.tar").write_bytes(tar.read_bytes()[:7000])
    for _ in range(2):  # the second time, the refused file must not look like the whole one
        sent = rclone(server, "copy", tmp_path / "bad.tar", ":webdav:incoming")
        assert sent.returncode == 1
        assert "422 the archive is cut short" in sent.stderr


def test_a_directory_that_is_quiet_is_imported(server: Served, tmp_path: Path) -> None:
    folder = made(tmp_path, "as-folder:v1", {"w": b"w" * 5000, "d/x": b"x"})
    sent = rclone(server, "copy", folder, ":webdav:incoming/as-folder")
    assert sent.returncode == 0, sent.stderr
    imported = Path(server.store) / "as-folder/v1"
    wait_until((imported / "model.yaml").is_file, 20, "it is imported")
    same(imported, folder)


def test_rclone_mount(server: Served, tmp_path: Path) -> None:
    where = tmp_path / "mnt"
    where.mkdir()
    command = [RCLONE, "mount", ":webdav:", where, "--webdav-url", server.url, "--config", "/dev/null"]
    with ended(subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)) as mount:
        try:
            wait_until(lambda: where in mountpoints(where), 30, "rclone has mounted")
            assert (where / "models/iris/v1/iris-v1.zip").stat().st_size == len(
                server.get("/models/iris/v1/iris-v1.zip").body
            )
            assert (where / "models/iris/v2/files/w.bin").read_bytes() == b"2" * 5000
            tar = made_tar(tmp_path, "by-rclone-mount:v1")
            run("cp", tar, where / "incoming/")
            assert (Path(server.store) / "by-rclone-mount/v1/w").is_file()
        finally:
            unmount_lazily(where)
            with contextlib.suppress(subprocess.TimeoutExpired):
                mount.wait(10)


def test_cadaver(server: Served, tmp_path: Path) -> None:
    server.expect_log("bad-cadaver.tar was not imported: ")
    tar = made_tar(tmp_path, "by-cadaver:v1", {"w": b"w" * 20_000})
    (tmp_path / "bad-cadaver.tar").write_bytes(tar.read_bytes()[:7000])
    script = (
        f"cd incoming\nput {tar}\nput {tmp_path}/bad-cadaver.tar\ncd ../models/iris/v2/files\nget w.bin {tmp_path}/w\n"
    )
    done = run("cadaver", server.url + "/", input=script, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)})
    assert "422 the archive is cut short" in done.stdout
    assert (tmp_path / "w").read_bytes() == b"2" * 5000
    assert (Path(server.store) / "by-cadaver/v1/w").is_file()


@pytest.mark.root
def test_davfs2(server: Served, tmp_path: Path) -> None:
    """It sends a file some time after the close, at the latest when it unmounts."""
    tar = made_tar(tmp_path, "by-davfs:v1")
    with tempfile.TemporaryDirectory(dir="/tmp") as base:  # davfs2's own user must get there
        where, cache, config = Path(base) / "mnt", Path(base) / "cache", Path(base) / "davfs2.conf"
        Path(base).chmod(0o755)
        where.mkdir()
        cache.mkdir()
        cache.chmod(0o775)
        run("chgrp", "davfs2", cache)
        config.write_text(f"ask_auth 0\ncache_dir {cache}\ndelay_upload 0\n")
        config.chmod(0o600)
        run("mount.davfs", "-o", f"conf={config}", f"{server.url}/", where)
        try:
            assert (where / "models/iris/v2/files/w.bin").read_bytes() == b"2" * 5000
            run("cp", tar, where / "incoming/by-davfs.tar")
        finally:
            run("umount", where)
    assert (Path(server.store) / "by-davfs/v1/w").is_file()
