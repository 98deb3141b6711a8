"""Transfers by FTP, SFTP and HTTP to and from real servers, judged by BentoML's own import where it can."""

import contextlib
import functools
import getpass
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.filesystems import AbstractedFS
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

from bentofs.store.api import export_model, import_model
from bentofs.store.errors import (
    BadLocationError,
    RemoteDeniedError,
    RemoteError,
    RemoteNotFoundError,
    SourceChangedError,
    StoreError,
    TargetExistsError,
    UnreachableError,
    UnsafeMemberError,
)
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints import pool as endpoints
from bentofs.store.wiring.transfers import opened_exporter
from tests.harness import ROOT, ended, home_of, make_model, run, wait_until
from tests.interop.conftest import Judge, SshServer
from tests.servers import FtpServer

_FILES: dict[str | bytes, bytes | int] = {
    "weights.bin": os.urandom(5 << 20),
    "nested/leaf": b"x",
    "empty.bin": b"",
    "an empty folder/": b"",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def model(store: Path) -> Path:
    return make_model(store, "demo:v1", _FILES)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    return tmp_path / "other"


class Place:
    """A server's folder, from outside and from inside."""

    def __init__(self, protocol: str, netloc: str, path: str, query: str, root: Path) -> None:
        self.protocol, self._netloc, self._path, self._query, self.root = protocol, netloc, path, query, root

    def url(self, name: str, *, secrets: bool = True) -> str:
        netloc = self._netloc if secrets else self._netloc.rpartition("@")[2]
        return f"{self.protocol}://{netloc}{self._path}/{name}" + (self._query if secrets else "")


@pytest.fixture(params=["ftp", "sftp"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "ftp":
        ftp: FtpServer = request.getfixturevalue("ftp_server")
        netloc = f"{quote(ftp.user, '')}:{quote(ftp.password, '')}@127.0.0.1:{ftp.port}"
        return Place("ftp", netloc, "", "", ftp.root)
    ssh: SshServer = request.getfixturevalue("ssh_server")
    root = tmp_path / "sftp"
    root.mkdir()
    query = f"?identity={quote(str(ssh.key))}&known_hosts={quote(str(ssh.known_hosts))}"
    return Place("sftp", f"{getpass.getuser()}@127.0.0.1:{ssh.port}", str(root), query, root)


def sftp_url(ssh: SshServer, path: Path) -> str:
    query = f"?identity={quote(str(ssh.key))}&known_hosts={quote(str(ssh.known_hosts))}"
    return f"sftp://{getpass.getuser()}@127.0.0.1:{ssh.port}{path}{query}"


def test_there_and_back(place: Place, model: Path, other: Path) -> None:
    for number, name in enumerate(("m.bentomodel", "m.tar.gz", "m.zip", "m.tar")):
        local = export_model("demo:v1", str(other / name))
        for _ in range(2):  # the second one replaces the first
            assert export_model("demo:v1", place.url(name), sha256=True) == place.url(name, secrets=False)
        assert (place.root / name).read_bytes() == Path(local).read_bytes()
        subprocess.run(["sha256sum", "-c", f"{name}.sha256"], cwd=place.root, check=True, stdout=subprocess.DEVNULL)
        store = other / str(number)
        store.mkdir()
        assert import_model(place.url(name), store=str(store)) == ("demo", "v1")
        subprocess.run(["diff", "-r", str(model), str(store / "demo/v1")], check=True)
    assert len(os.listdir(place.root)) == 8


_SLOW_EXPORT = """
import sys, time
from bentofs.store.transfer.endpoints.pool import Endpoints
from bentofs.store.location import Location

class Slow:
    length = 4 << 20
    def read_into(self, views, offset):
        if offset:
            print("begun", flush=True)
            time.sleep(60)  # until it is killed

location = Location.parse(sys.argv[1])
with Endpoints().target(location) as target:
    target.write(location.path, Slow(), lambda count: None)
"""


@pytest.mark.usefixtures("model")
def test_what_a_killed_export_left_goes_with_the_next_one(place: Place) -> None:
    command = [sys.executable, "-c", _SLOW_EXPORT, place.url("slow.tar")]
    with ended(
        subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        export_model("demo:v1", place.url("m.tar"))
        part, name = sorted(os.listdir(place.root))
        assert (part[:6], part[-5:], name) == (".slow.", ".part", "m.tar")  # of a part of a running export
        process.kill()
        process.wait(10)
    export_model("demo:v1", place.url("m.tar"))
    assert os.listdir(place.root) == ["m.tar"]


def test_folder_there_and_back(place: Place, model: Path, other: Path) -> None:
    export_model("demo:v1", place.url("a/folder"), "folder")
    subprocess.run(["diff", "-r", str(model), str(place.root / "a/folder")], check=True)
    assert import_model(place.url("a/folder"), "folder", store=str(other)) == ("demo", "v1")
    subprocess.run(["diff", "-r", str(model), str(other / "demo/v1")], check=True)
    with pytest.raises(TargetExistsError):
        export_model("demo:v1", place.url("a/folder"), "folder")


@pytest.mark.usefixtures("model")
def test_an_sftp_server_that_renames_over_nothing(
    ssh_server: SshServer, tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that knows no more than the protocol does not rename over a file."""

    def unsupported(*_arguments: object) -> None:
        raise OSError("Operation unsupported")

    monkeypatch.setattr("paramiko.SFTPClient.posix_rename", unsupported)
    (tmp_path / "sftp").mkdir()
    expected = Path(export_model("demo:v1", str(other / "m.tar"))).read_bytes()
    for _ in range(2):  # the second one replaces the first
        export_model("demo:v1", sftp_url(ssh_server, tmp_path / "sftp/m.tar"))
        assert os.listdir(tmp_path / "sftp") == ["m.tar"]
        assert (tmp_path / "sftp/m.tar").read_bytes() == expected
        (tmp_path / "sftp/m.tar").write_bytes(b"old")


@pytest.mark.usefixtures("model")
def test_a_folder_in_the_way(place: Place) -> None:
    (place.root / "m.tar").mkdir()
    (place.root / "m.tar" / "file").write_bytes(b"")
    with pytest.raises(RemoteError):
        export_model("demo:v1", place.url("m.tar"))
    assert os.listdir(place.root) == ["m.tar"]
    assert os.listdir(place.root / "m.tar") == ["file"]


def test_programs_in_a_folder(ssh_server: SshServer, store: Path, tmp_path: Path, other: Path) -> None:
    make_model(store, "demo:v1", {"run.sh": b"#!", "data": b"x"}, executable=["run.sh"])
    url = sftp_url(ssh_server, tmp_path / "folder")
    export_model("demo:v1", url, "folder")
    import_model(url, "folder", store=str(other))
    for folder in (tmp_path / "folder", other / "demo/v1"):
        assert [name for name in os.listdir(folder) if os.stat(folder / name).st_mode & 0o111] == ["run.sh"]


def test_a_folder_of_files_only(place: Place, store: Path) -> None:
    model = make_model(store, "flat:v1", {"weights.bin": b"x"})
    export_model("flat:v1", place.url("new/folder"), "folder")
    subprocess.run(["diff", "-r", str(model), str(place.root / "new/folder")], check=True)


@pytest.mark.usefixtures("model")
def test_into_a_folder_that_is_not_there(place: Place, other: Path) -> None:
    """Two exports at once make the missing folder: both want to."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda name: export_model("demo:v1", place.url(f"new/deep er/{name}")), ("m.tar", "m.zip")))
    assert sorted(os.listdir(place.root / "new/deep er")) == ["m.tar", "m.zip"]
    assert import_model(place.url("new/deep er/m.zip"), store=str(other)) == ("demo", "v1")


def test_a_folder_with_links(ssh_server: SshServer, tmp_path: Path, model: Path, other: Path) -> None:
    """Nothing in a folder with links is left out without a word."""
    url = sftp_url(ssh_server, model)
    (model / "nested" / "link").symlink_to("../weights.bin")
    import_model(url, "folder", store=str(other))
    assert (other / "demo/v1/nested/link").read_bytes() == _FILES["weights.bin"]
    for target in (tmp_path, "nowhere", "nested", "/etc/passwd"):
        (model / "link").symlink_to(target)
        with pytest.raises(StoreError, match=r"link|not there"):
            import_model(url, "folder", store=str(other), overwrite=True)
        (model / "link").unlink()


def test_a_zip_that_leads_back(place: Place, model: Path, other: Path) -> None:
    """If the source cannot seek, the passed bytes are kept, and removed at the end."""
    (model / "link").symlink_to("weights.bin")
    subprocess.run(["zip", "-q", "-r", "-y", str(place.root / "m.zip"), "."], cwd=model, check=True)
    import_model(place.url("m.zip"), store=str(other))
    assert (other / "demo/v1/link").read_bytes() == _FILES["weights.bin"]
    assert os.listdir(other.parent / ".other.bentofs" / "sessions") == []


def test_nothing_is_left_of_an_export_that_failed(place: Place, model: Path) -> None:
    with opened_exporter(None) as (models, exporter):
        for form in (None, "folder"):
            plan = exporter.plan(models.find("demo"), Location.parse(place.url("m")), form)

            def fail(_count: int) -> None:
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                exporter.run(plan, fail)

            def change(_size: int) -> None:
                (model / "weights.bin").write_bytes(os.urandom(1000))

            with pytest.raises(SourceChangedError):
                exporter.run(plan, lambda _count: None, expect=change)
            assert {path.name for path in place.root.rglob("*")} <= {"m"}


def test_what_is_not_there(place: Place, other: Path) -> None:
    with pytest.raises(RemoteNotFoundError, match="is not there"):
        import_model(place.url("missing.tar"), store=str(other))


@pytest.mark.usefixtures("model")
def test_bentoml_reads_what_was_exported(place: Place, other: Path) -> None:
    export_model("demo:v1", place.url("m.bentomodel"))
    Judge("1.4").run(other, "import", str(place.root / "m.bentomodel"))
    assert list(Judge("1.4").describe(other)) == ["demo:v1"]


@pytest.mark.usefixtures("model")
def test_keys_below_home(ssh_server: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell replaces a ~ within a URL."""
    monkeypatch.setenv("HOME", str(ssh_server.key.parent))
    query = f"?identity=~/{ssh_server.key.name}&known_hosts=~/{ssh_server.known_hosts.name}"
    export_model("demo:v1", f"sftp://{getpass.getuser()}@127.0.0.1:{ssh_server.port}{tmp_path}/m.tar{query}")
    assert (tmp_path / "m.tar").is_file()


@pytest.mark.usefixtures("model")
def test_an_unknown_host_key_is_refused(ssh_server: SshServer, tmp_path: Path) -> None:
    url = (
        f"sftp://{getpass.getuser()}@127.0.0.1:{ssh_server.port}{tmp_path}/m.tar?identity={quote(str(ssh_server.key))}"
    )
    with pytest.raises(RemoteDeniedError, match="host key"):
        export_model("demo:v1", url)


@pytest.mark.usefixtures("model")
def test_a_disk_that_is_full_for_a_moment(ssh_server: SshServer, tmp_path: Path) -> None:
    """Failed writes between successful ones do not leave a file of the right length with a hole in it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "bentofs-test", disk)
    try:
        (disk / "filler").write_bytes(bytes(3 << 20))
        url = sftp_url(ssh_server, disk / "m.tar")
        with opened_exporter(None) as (models, exporter):
            sent = 0

            def free_later(count: int) -> None:
                nonlocal sent
                sent += count
                if sent > 2_000_000 and (disk / "filler").exists():
                    wait_until(lambda: os.statvfs(disk).f_bavail == 0, 20, "the server has filled the disk")
                    time.sleep(0.1)  # until the write behind the last free byte has failed
                    (disk / "filler").unlink()

            make_model(Path(models.storage.location), "small:v1", {"weights.bin": os.urandom(3_000_000)})
            plan = exporter.plan(models.find("small"), Location.parse(url))
            with pytest.raises(StoreError):
                exporter.run(plan, free_later)
        assert os.listdir(disk) == []
    finally:
        run("umount", "-l", disk)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None: ...

    handler = functools.partial(Handler, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.usefixtures("model")
def test_a_web_server(web: str, tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own web server knows no ranges."""
    for name in ("m.bentomodel", "m.zip"):
        export_model("demo:v1", str(tmp_path / "web" / name), sha256=True)
        import_model(f"{web}/{name}?signature=secret", store=str(other))
        import_model(f"{web}/{name}", store=str(other))
    with pytest.raises(RemoteNotFoundError) as raised:
        import_model(f"{web}/missing?signature=secret", store=str(other))
    assert "secret" not in str(raised.value)
    with pytest.raises(BadLocationError, match="files cannot be written"):
        export_model("demo:v1", f"{web}/m.tar")
    monkeypatch.setattr(endpoints, "POLICY", replace(endpoints.POLICY, first_pause=0.01))
    with pytest.raises(UnreachableError, match="cannot be reached") as refused:
        import_model("http://127.0.0.1:1/m.zip?signature=secret", store=str(other))
    assert not isinstance(refused.value, RemoteNotFoundError)
    assert "secret" not in str(refused.value)


class _BreaksOff(http.server.BaseHTTPRequestHandler):
    """Gives ranges. Gives only a part of the first one that is larger than a megabyte."""

    content: bytes
    broken: ClassVar[list[str]]

    def log_message(self, *_arguments: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self.path.endswith(".tar"):
            self.send_error(404)
            return
        start, stop, status = 0, len(self.content), 200
        if "Range" in self.headers:
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            start, stop, status = int(first), min(stop, int(last) + 1), 206
        self.send_response(status)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(self.content)}")
        self.end_headers()
        if self.command == "GET":
            if stop - start > 1 << 20 and not self.broken:
                self.broken.append(self.path)
                stop = start + 1000
            self.wfile.write(self.content[start:stop])


@pytest.mark.usefixtures("model")
def test_a_web_server_that_breaks_off(tmp_path: Path, other: Path) -> None:
    archive = Path(export_model("demo:v1", str(tmp_path / "m.tar"))).read_bytes()

    class Handler(_BreaksOff):
        content = archive
        broken: ClassVar[list[str]] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        import_model(f"http://127.0.0.1:{server.server_port}/m.tar", store=str(other))
        server.shutdown()
    assert Handler.broken == ["/m.tar"]


@pytest.mark.usefixtures("model")
def test_a_web_server_that_takes_gz_for_an_encoding(tmp_path: Path, other: Path) -> None:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None: ...

        def end_headers(self) -> None:
            if self.path.endswith(".gz"):
                self.send_header("Content-Encoding", "gzip")
            super().end_headers()

    export_model("demo:v1", str(tmp_path / "m.tar.gz"), sha256=True)
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        import_model(f"http://127.0.0.1:{server.server_port}/m.tar.gz", "gz", store=str(other))
        server.shutdown()


@pytest.mark.parametrize("password", ["p@ss word%", "plain-secret"])
def test_the_password_of_a_web_server_is_not_shown(web: str, other: Path, password: str) -> None:
    with pytest.raises(RemoteNotFoundError, match="is not there") as raised:
        import_model(f"{web.replace('://', f'://me:{quote(password)}@')}/missing.tar", store=str(other))
    assert password not in str(raised.value)
    assert quote(password, "") not in str(raised.value)


class _NotOver(FTPHandler):
    """Does not rename over a file."""

    def ftp_RNTO(self, path: str) -> str | None:  # noqa: N802 - their name
        if os.path.exists(path):
            self.respond("553 File exists.")
            return None
        renamed: str | None = super().ftp_RNTO(path)
        return renamed


@contextlib.contextmanager
def _ftp_of_a_kind(root: Path, handler: type[FTPHandler], permissions: str) -> Iterator[str]:
    root.mkdir()
    authorizer = DummyAuthorizer()
    authorizer.add_user("me", "secret", str(root), perm=permissions)
    kind = type("_Handler", (handler,), {"authorizer": authorizer})
    server = ThreadedFTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"ftp://me:secret@127.0.0.1:{server.address[1]}"
    finally:
        server.close_all()
        thread.join(10)


@pytest.mark.usefixtures("model")
def test_an_ftp_server_that_renames_over_nothing(tmp_path: Path, other: Path) -> None:
    with _ftp_of_a_kind(tmp_path / "root", _NotOver, "elradfmwMT") as url:
        (tmp_path / "root/m.tar").write_bytes(b"old")
        export_model("demo:v1", f"{url}/m.tar")
    assert os.listdir(tmp_path / "root") == ["m.tar"]
    assert (tmp_path / "root/m.tar").read_bytes() == Path(export_model("demo:v1", str(other / "m.tar"))).read_bytes()


@pytest.mark.usefixtures("model")
def test_an_ftp_server_that_does_not_rename(tmp_path: Path) -> None:
    """The old file is worth more than an export that cannot succeed."""
    with _ftp_of_a_kind(tmp_path / "root", FTPHandler, "elradmwMT") as url:
        (tmp_path / "root/m.tar").write_bytes(b"old")
        with pytest.raises(StoreError):
            export_model("demo:v1", f"{url}/m.tar")
    assert (tmp_path / "root/m.tar").read_bytes() == b"old"


class _TellsLinks(AbstractedFS):
    def format_mlsx(self, *arguments: Any, **options: Any) -> Iterator[bytes]:
        for line in super().format_mlsx(*arguments, **options):
            yield line.replace(b"type=file", b"type=OS.unix=slink") if b"link" in line else line


def test_an_ftp_server_that_tells_links(tmp_path: Path, model: Path, other: Path) -> None:
    """Links whose targets are unknown are not left out without a word."""
    kind = type("_Handler", (FTPHandler,), {"abstracted_fs": _TellsLinks})
    with _ftp_of_a_kind(tmp_path / "root", kind, "elradfmwMT") as url:
        subprocess.run(["cp", "-r", model, tmp_path / "root/folder"], check=True)
        import_model(f"{url}/folder", "folder", store=str(other))
        (tmp_path / "root/folder/link").symlink_to("weights.bin")
        with pytest.raises(UnsafeMemberError, match="'link'"):
            import_model(f"{url}/folder", "folder", store=str(other), overwrite=True)
