"""Transfers to and from two real S3 servers, judged by BentoML's own export and import of the same URLs."""

import contextlib
import hashlib
import http.server
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.api import export_model, import_model
from bentofs.store.clients.s3_multipart import MAX_OBJECT, MAX_PARTS, part_size
from bentofs.store.errors import (
    DamagedArchiveError,
    MissingStoreError,
    RemoteDeniedError,
    RemoteNotFoundError,
    SourceChangedError,
)
from bentofs.store.formats.write.deflate import sample_ranges
from bentofs.store.location import Location
from bentofs.store.wiring.transfers import opened_exporter, opened_fetcher
from tests.harness import ROOT, ended, home_of, make_model
from tests.interop.conftest import Judge
from tests.servers import S3Server

_LARGE = 17 << 20  # bytes: three parts
_FILES = {"weights.bin": os.urandom(_LARGE), "nested/leaf": b"x", "empty.bin": b""}


@pytest.fixture(params=["seaweed", "rclone"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def bucket(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {**home_of(tmp_path), **server.environment()}.items():
        monkeypatch.setenv(name, value)
    return server.new_bucket()


@pytest.fixture
def model(store: Path) -> Path:
    return make_model(store, "demo:v1", _FILES)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    (tmp_path / "other" / "bentoml" / "models").mkdir(parents=True)
    return tmp_path / "other"


def same(model: Path, home: Path) -> None:
    subprocess.run(["diff", "-r", str(model), str(home / "bentoml/models/demo/v1")], check=True)


@given(st.one_of(st.integers(0, MAX_OBJECT), st.integers(0, 1000).map(lambda less: MAX_OBJECT - less)))
def test_the_parts_of_an_object_are_such_as_s3_takes(length: int) -> None:
    size = part_size(length)
    assert 5 << 20 <= size <= 5 << 30
    assert -(-length // size) <= MAX_PARTS


def test_there_and_back(server: S3Server, bucket: str, model: Path, other: Path) -> None:
    for number, name in enumerate(("m.bentomodel", "m.tar.gz", "m.zip", "m.tar")):
        local = export_model("demo:v1", str(other / name))
        assert export_model("demo:v1", f"s3://{bucket}/some/{name}", sha256=True) == f"s3://{bucket}/some/{name}"
        content = server.content(bucket, f"some/{name}")
        assert content == Path(local).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert server.content(bucket, f"some/{name}.sha256").decode() == f"{digest}  {name}\n"
        store = other / str(number)
        store.mkdir()
        assert import_model(f"s3://{bucket}/some/{name}", store=str(store)) == ("demo", "v1")
        subprocess.run(["diff", "-r", str(model), str(store / "demo" / "v1")], check=True)
    assert server.unfinished_uploads(bucket) == []
    assert not any(Path(os.environ["TMPDIR"]).iterdir())


def test_folder_there_and_back(server: S3Server, bucket: str, model: Path, other: Path) -> None:
    export_model("demo:v1", bucket, "folder", protocol="s3", subpath="a/folder")
    assert server.keys(bucket) == {
        f"a/folder/{name}": (model / name).stat().st_size for name in ("model.yaml", *_FILES)
    }
    import_model(f"s3://{bucket}/a/folder", "folder", store=str(other / "bentoml/models"))
    same(model, other)
    assert server.unfinished_uploads(bucket) == []


@pytest.mark.parametrize("server", ["seaweed"], indirect=True)
@pytest.mark.usefixtures("model")
def test_bentoml_reads_what_was_exported(bucket: str, other: Path) -> None:
    for name in ("m.bentomodel", "m.zip"):
        export_model("demo:v1", f"s3://{bucket}/{name}")
        judge = other / name
        judge.mkdir()
        Judge("1.4").run(judge, "import", f"s3://{bucket}/{name}")
        assert list(Judge("1.4").describe(judge)) == ["demo:v1"]
        assert (judge / "bentoml/models/demo/v1/weights.bin").read_bytes() == _FILES["weights.bin"]


@pytest.mark.parametrize("server", ["seaweed"], indirect=True)
def test_what_bentoml_exported_is_imported(bucket: str, tmp_path: Path, other: Path) -> None:
    Judge("1.4").run(tmp_path, "save")
    saved = tmp_path / "bentoml/models/rich/v1.0-rc.1"
    for path, *form in (("m.bentomodel",), ("m.tar.gz",), ("m.zip",), ("folder", "folder")):
        Judge("1.4").run(tmp_path, "export", "rich:v1.0-rc.1", f"s3://{bucket}/{path}", *form)
        store = other / path
        store.mkdir()
        import_model(f"s3://{bucket}/{path}", *form, store=str(store))
        if form:  # objects have no empty folders
            (store / "rich/v1.0-rc.1/an empty folder/within").mkdir(parents=True)
        subprocess.run(["diff", "-r", str(saved), str(store / "rich/v1.0-rc.1")], check=True)


@pytest.mark.parametrize("server", ["seaweed"], indirect=True)
def test_the_same_name_in_a_folder_as_bentoml_gives(bucket: str, server: S3Server, store: Path, tmp_path: Path) -> None:
    make_model(store, "demo:v1", {"small": b"x"})
    ours = export_model("demo:v1", f"s3://{bucket}/ours/")
    Judge("1.4").run(tmp_path, "export", "demo:v1", f"s3://{bucket}/theirs/")
    assert ours == f"s3://{bucket}/ours/demo-v1.bentomodel"
    assert set(server.keys(bucket)) == {"ours/demo-v1.bentomodel", "theirs/demo-v1.bentomodel"}


def test_nothing_is_left_of_an_export_that_failed(server: S3Server, bucket: str, model: Path) -> None:
    server.put(bucket, "there.tar", b"the old one")
    with opened_exporter(None) as (models, exporter):
        for name, form in (("there.tar", None), ("new.tar", None), ("folder", "folder")):
            plan = exporter.plan(models.find("demo"), Location.parse(f"s3://{bucket}/{name}"), form)

            def fail(_count: int) -> None:
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                exporter.run(plan, fail)

            def change(_size: int) -> None:
                (model / "weights.bin").write_bytes(os.urandom(_LARGE + 1))

            with pytest.raises(SourceChangedError):
                exporter.run(plan, lambda _count: None, expect=change)
            assert server.unfinished_uploads(bucket) == []
            assert server.content(bucket, "there.tar") == b"the old one"
            assert list(server.keys(bucket)) == ["there.tar"]


@pytest.mark.parametrize("name", ["m.tar.gz", "m.zip"])
def test_archives_that_are_sent_while_they_are_measured(
    server: S3Server, bucket: str, store: Path, other: Path, name: str
) -> None:
    text = os.urandom(13 << 20).hex().encode()  # of which half is left: three parts
    files: dict[str | bytes, bytes | int] = {
        "text": text,
        "random": os.urandom(4 << 20),
        "nested/leaf": b"x",
        "empty": b"",
    }
    model = make_model(store, "demo:v1", files)
    server.put(bucket, name, b"the old one")
    with opened_exporter(None) as (models, exporter):
        plan = exporter.plan(models.find("demo"), Location.parse(f"s3://{bucket}/{name}"))

        def fail(_count: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            exporter.run(plan, fail)

        def change(_size: int) -> None:
            (model / "text").write_bytes(text + b"x")

        with pytest.raises(SourceChangedError):
            exporter.run(plan, lambda _count: None, expect=change)
        assert server.unfinished_uploads(bucket) == []
        assert server.content(bucket, name) == b"the old one"
        told: list[int] = []
        expected: list[int] = []
        done = exporter.run(plan, told.append, expect=expected.append)
    local = Path(export_model("demo:v1", str(other / name)))
    assert server.content(bucket, name) == local.read_bytes()
    assert sum(told) == expected[-1] == done.size == local.stat().st_size
    assert expected[0] != done.size, "it was not known before"
    assert server.unfinished_uploads(bucket) == []


@pytest.mark.parametrize("name", ["m.tar.gz", "m.zip"])
def test_an_archive_whose_samples_mislead(server: S3Server, bucket: str, store: Path, other: Path, name: str) -> None:
    """Its files compress only where they are sampled. That they are to be stored is found out while they are sent."""
    files: dict[str | bytes, bytes | int] = {}
    for number in range(2):
        content, ranges = bytearray(os.urandom(8 << 20)), sample_ranges(8 << 20)
        for start, length in ranges:
            content[start : start + length] = content[: ranges[0][1]]
        files[f"random{number}"] = bytes(content)
    make_model(store, "demo:v1", {**files, "text": b"some words, " * (8 << 20)})
    told: list[int] = []
    expected: list[int] = []
    with opened_exporter(None) as (models, exporter):
        plan = exporter.plan(models.find("demo"), Location.parse(f"s3://{bucket}/{name}"))
        done = exporter.run(plan, told.append, expect=expected.append)
    local = Path(export_model("demo:v1", str(other / name)))
    assert server.content(bucket, name) == local.read_bytes()
    assert sum(told) == expected[-1] == done.size == local.stat().st_size
    assert server.unfinished_uploads(bucket) == []


@pytest.mark.usefixtures("model")
def test_an_import_of_an_object_that_is_replaced_meanwhile(
    seaweed: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Path
) -> None:
    for name, value in {**home_of(tmp_path), **seaweed.environment()}.items():
        monkeypatch.setenv(name, value)
    bucket = seaweed.new_bucket()
    url = export_model("demo:v1", f"s3://{bucket}/m.tar")
    content = seaweed.content(bucket, "m.tar")
    replaced = False

    def replace(_count: int) -> None:
        nonlocal replaced
        if not replaced:
            replaced = True
            seaweed.put(bucket, "m.tar", content[:-1] + b"x")

    with opened_fetcher(str(other)) as fetcher, pytest.raises((SourceChangedError, DamagedArchiveError)):
        fetcher.fetch(Location.parse(url), replace)
    assert not (other / "demo").exists()


@pytest.mark.usefixtures("model")
def test_what_is_not_there_and_who_may_not(server: S3Server, bucket: str, other: Path) -> None:
    with pytest.raises(RemoteNotFoundError, match=f"s3://{bucket}/missing is not there"):
        import_model(f"s3://{bucket}/missing", store=str(other))
    with pytest.raises(RemoteNotFoundError):
        import_model(f"s3://{bucket}/missing/", "folder", store=str(other))
    with pytest.raises((MissingStoreError, RemoteNotFoundError)):  # SeaweedFS does not say that it is the bucket
        export_model("demo:v1", "s3://no-such-bucket-here/m.tar")
    with pytest.raises(RemoteDeniedError) as raised:
        export_model("demo:v1", f"s3://{server.access_key}:a%2Fwrong-secret@{bucket}/m.tar")
    assert "wrong-secret" not in str(raised.value)
    assert server.keys(bucket) == {}
    secret = server.secret_key.replace("/", "%2F")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.pop(name)  # monkeypatch puts them back
    export_model("demo:v1", f"s3://{server.access_key}:{secret}@{bucket}/m.tar")
    assert list(server.keys(bucket)) == ["m.tar"]


def test_neither_disk_nor_much_memory(seaweed: S3Server, tmp_path: Path, store: Path) -> None:
    make_model(store, "big:v1", {"weights.bin": 160 << 20})
    bucket = seaweed.new_bucket()
    environment = {**os.environ, **home_of(tmp_path), **seaweed.environment()}

    def no_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))  # bytes of any file: the index is smaller

    def peak(*arguments: str, limited: bool) -> int:
        """Return the peak memory in bytes. wait4 is not used: its figure includes this process's, from before the
        exec."""
        with ended(
            subprocess.Popen(
                [sys.executable, "-m", "bentofs.mount", *arguments],
                cwd=ROOT,
                env=environment,
                preexec_fn=no_disk if limited else None,
                stdout=subprocess.DEVNULL,
            )
        ) as process:
            found = 0
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status").read_text()
                command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                if b"-m\0bentofs.mount" in command and "VmHWM" in status:
                    found = int(status.split("VmHWM:")[1].split()[0]) << 10
                time.sleep(0.01)  # between two looks
            assert process.returncode == 0
            return found

    assert peak("export", "big:v1", f"s3://{bucket}/m.tar", "--quiet", limited=True) < 200_000_000
    assert peak("import", f"s3://{bucket}/m.tar", "--store", str(_made(tmp_path / "o")), limited=False) < 200_000_000


def _made(path: Path) -> Path:
    path.mkdir()
    return path


class _Sparing(http.server.BaseHTTPRequestHandler):
    """S3 for users who may read, or write, single objects but not list them: a missing object is denied."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]
    may_read: bool

    def log_message(self, *_arguments: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(b"", 0)

    def do_GET(self) -> None:
        start, stop = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        self._answer(self.objects.get(self.path, b"")[start : stop + 1], start)

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.md5(self.objects[self.path]).hexdigest()}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, body: bytes, start: int) -> None:
        content = self.objects.get(self.path)
        if content is None or not self.may_read:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if body else 200)
        self.send_header("Content-Length", str(len(body) or len(content)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
        self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        self.send_header("Last-Modified", "Mon, 05 Jan 2026 03:04:05 GMT")
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def _sparing(may_read: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Give the parameters of its URL, and its objects."""
    objects: dict[str, bytes] = {}
    handler = type("_Handler", (_Sparing,), {"objects": objects, "may_read": may_read})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"?endpoint_url=http://127.0.0.1:{server.server_port}&region=us-east-1", objects
        server.shutdown()


def test_credentials_that_may_only_read_one_object(model: Path, other: Path) -> None:
    """A reader of one object cannot tell whether a `.sha256` lies beside it, and does not need one."""
    export_model("demo:v1", str(other / "m.tar"), store=str(model.parent.parent))
    with _sparing(may_read=True) as (params, objects):
        objects["/bucket/m.tar"] = (other / "m.tar").read_bytes()
        import_model(f"s3://AK:secret@bucket/m.tar{params}", store=str(other / "bentoml/models"))
    same(model, other)


def test_credentials_that_may_only_write(store: Path, other: Path) -> None:
    make_model(store, "small:v1", {"weights.bin": os.urandom(100_000)})
    export_model("small:v1", str(other / "m.tar"), store=str(store))
    with _sparing(may_read=False) as (params, objects):
        export_model("small:v1", f"s3://AK:secret@bucket/m.tar{params}", store=str(store))
        assert objects == {"/bucket/m.tar": (other / "m.tar").read_bytes()}
