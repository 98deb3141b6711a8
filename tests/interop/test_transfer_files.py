"""Transfers by FTP, SFTP and HTTP to and from real servers, judged by BentoML's own import where it can."""

import functools
import getpass
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from store.errors import RemoteDeniedError, RemoteError, RemoteNotFoundError, SourceChangedError, TargetExistsError
from store.location import Location
from store.transfer import export_model, import_model, opened_exporter
from tests.harness import home_of, make_model
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


def test_folder_there_and_back(place: Place, model: Path, other: Path) -> None:
    export_model("demo:v1", place.url("a/folder"), "folder")
    subprocess.run(["diff", "-r", str(model), str(place.root / "a/folder")], check=True)
    assert import_model(place.url("a/folder"), "folder", store=str(other)) == ("demo", "v1")
    subprocess.run(["diff", "-r", str(model), str(other / "demo/v1")], check=True)
    with pytest.raises(TargetExistsError):
        export_model("demo:v1", place.url("a/folder"), "folder")


def test_a_zip_that_leads_back(place: Place, model: Path, other: Path) -> None:
    """Where the source cannot seek, what has passed is kept, and nothing stays of that."""
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
    """Python's own, which knows no ranges."""
    for name in ("m.bentomodel", "m.zip"):
        export_model("demo:v1", str(tmp_path / "web" / name), sha256=True)
        import_model(f"{web}/{name}?signature=secret", store=str(other))
        import_model(f"{web}/{name}", store=str(other))
    with pytest.raises(RemoteNotFoundError) as raised:
        import_model(f"{web}/missing?signature=secret", store=str(other))
    assert "secret" not in str(raised.value)
    with pytest.raises(RemoteError, match="nothing can be written"):
        export_model("demo:v1", f"{web}/m.tar")
    monkeypatch.setattr("store.endpoints.trouble._FIRST_PAUSE", 0.01)
    with pytest.raises(RemoteError, match="could not be reached") as refused:
        import_model("http://127.0.0.1:1/m.zip?signature=secret", store=str(other))
    assert not isinstance(refused.value, RemoteNotFoundError)
    assert "secret" not in str(refused.value)
