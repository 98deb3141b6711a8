"""Transfers while servers die, hang, are busy, cut connections, and while the process itself ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from bentofs.store.api import export_model, import_model
from bentofs.store.errors import NoSpaceError, RemoteDeniedError, RemoteError, SourceChangedError
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints import pool
from bentofs.store.wiring.transfers import opened_exporter, opened_fetcher
from tests.harness import ROOT, ended, home_of, make_model, wait_until
from tests.servers import FtpServer, Proxy, RcloneServer, S3Server

_LARGE = 24 << 20  # bytes: three parts
_QUICK = "?connect_timeout=1&read_timeout=1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses between tries; their number stays."""
    monkeypatch.setattr(pool, "POLICY", replace(pool.POLICY, first_pause=0.05))


@pytest.fixture
def model(store: Path) -> Path:
    return make_model(store, "demo:v1", {"weights.bin": os.urandom(_LARGE)})


@pytest.fixture
def other(tmp_path: Path) -> str:
    (tmp_path / "other").mkdir()
    return str(tmp_path / "other")


@pytest.fixture
def proxy(seaweed: S3Server, proxies: Callable[[int], Proxy]) -> Proxy:
    return proxies(seaweed.port)


@pytest.fixture
def bucket(seaweed: S3Server, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that is reached through the proxy."""
    for name, value in {**home_of(tmp_path), **seaweed.environment(proxy.endpoint)}.items():
        monkeypatch.setenv(name, value)
    return seaweed.new_bucket()


def when_sent(trouble: str, count: int) -> Callable[[Proxy], str | None]:
    return lambda proxy: trouble if proxy.sent > count else None


def once(trouble: str, count: int) -> Callable[[Proxy], str | None]:
    """Return a trigger that makes trouble once, when so many bytes have passed."""
    done = False

    def when(proxy: Proxy) -> str | None:
        nonlocal done
        if done or proxy.sent + proxy.received < count:
            return None
        done = True
        return trouble

    return when


@pytest.mark.expect_log("unfinished|cannot be reached, or breaks off")
@pytest.mark.parametrize("kind", ["reset", "hang"])
@pytest.mark.usefixtures("model")
def test_a_server_that_is_gone(seaweed: S3Server, proxy: Proxy, bucket: str, kind: str, tmp_path: Path) -> None:
    """The parts stay on the server, since nobody can reach it. The next export to the bucket removes them."""
    proxy.trouble_when = when_sent(kind, 12 << 20)
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=r"cannot be reached, or breaks off") as raised:
        export_model("demo:v1", f"s3://{bucket}/m.tar{_QUICK}")
    assert time.monotonic() - begun < 150
    assert f"s3://{bucket}/m.tar" in str(raised.value)
    assert seaweed.secret_key not in str(raised.value)
    assert seaweed.keys(bucket) == {}
    assert seaweed.unfinished_uploads(bucket) == ["m.tar"]
    proxy.trouble_when = proxy.trouble = None
    export_model("demo:v1", f"s3://{bucket}/another.tar")
    assert seaweed.unfinished_uploads(bucket) == []
    assert list(seaweed.keys(bucket)) == ["another.tar"]
    assert os.listdir(tmp_path / "state/bentofs/uploads") == []


@pytest.mark.parametrize("kind", ["reset", "503"])
def test_a_server_that_recovers(
    seaweed: S3Server, proxy: Proxy, bucket: str, model: Path, other: str, kind: str
) -> None:
    proxy.trouble_when = once(kind, 10 << 20)
    export_model("demo:v1", f"s3://{bucket}/m.tar{_QUICK}")
    proxy.sent = proxy.received = 0
    proxy.trouble_when = once(kind, 10 << 20)
    import_model(f"s3://{bucket}/m.tar{_QUICK}", store=other)
    subprocess.run(["diff", "-r", str(model), f"{other}/demo/v1"], check=True)
    assert seaweed.unfinished_uploads(bucket) == []


@pytest.mark.usefixtures("model")
def test_an_import_from_a_server_that_is_gone(proxy: Proxy, bucket: str, other: str) -> None:
    export_model("demo:v1", f"s3://{bucket}/m.tar")
    proxy.received = 0
    proxy.trouble_when = lambda proxy: "reset" if proxy.received > 12 << 20 else None
    with pytest.raises(RemoteError, match=r"cannot be reached, or breaks off"):
        import_model(f"s3://{bucket}/m.tar{_QUICK}", store=other)
    assert os.listdir(other) == []
    assert not os.listdir(f"{Path(other).parent}/.other.bentofs/sessions")


class Command:
    """A `bentofs export` that takes a while."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bentofs.mount", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("model")
def test_interrupted(seaweed: S3Server, proxy: Proxy, bucket: str, number: int) -> None:
    proxy.bytes_per_second = 8e6
    with ended(Command("export", "demo:v1", f"s3://{bucket}/m.tar").process) as process:
        wait_until(lambda: proxy.sent > 4 << 20, 30, "some has been sent")
        assert seaweed.unfinished_uploads(bucket) == ["m.tar"]
        process.send_signal(number)
        proxy.bytes_per_second = None
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert seaweed.keys(bucket) == {}
    assert seaweed.unfinished_uploads(bucket) == []


@pytest.mark.usefixtures("model")
def test_killed(seaweed: S3Server, proxy: Proxy, bucket: str) -> None:
    proxy.bytes_per_second = 8e6
    with ended(Command("export", "demo:v1", f"s3://{bucket}/m.tar").process) as process:
        wait_until(lambda: proxy.sent > 4 << 20, 30, "some has been sent")
    proxy.bytes_per_second = None
    assert seaweed.unfinished_uploads(bucket) == ["m.tar"]
    export_model("demo:v1", f"s3://{bucket}/small.tar")
    assert seaweed.unfinished_uploads(bucket) == []
    assert process.returncode == -signal.SIGKILL


@pytest.mark.usefixtures("model")
@pytest.mark.usefixtures("model")
def test_a_server_that_is_killed_meanwhile(
    rclone: RcloneServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
) -> None:
    for name, value in {**home_of(tmp_path), **rclone.environment()}.items():
        monkeypatch.setenv(name, value)
    bucket = rclone.new_bucket()
    expect_log("cannot be reached")
    with opened_exporter(None) as (models, exporter):
        plan = exporter.plan(models.find("demo"), Location.parse(f"s3://{bucket}/m.tar{_QUICK}"))
        with pytest.raises(RemoteError, match="cannot be reached"):
            exporter.run(plan, lambda _count: rclone.kill())
        rclone.start()
        assert rclone.keys(bucket) == {}
        exporter.run(plan, lambda _count: None)
    assert list(rclone.keys(bucket)) == ["m.tar"]
    assert rclone.unfinished_uploads(bucket) == []


@pytest.fixture
def ftp_url(ftp_server: FtpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    return f"ftp://{quote(ftp_server.user, '')}:{quote(ftp_server.password, '')}@127.0.0.1:{ftp_server.port}"


def test_ftp_server_that_is_killed_meanwhile(ftp_server: FtpServer, ftp_url: str, model: Path, other: str) -> None:
    export_model("demo:v1", f"{ftp_url}/m.tar")
    old = (ftp_server.root / "m.tar").read_bytes()
    (model / "weights.bin").write_bytes(os.urandom(_LARGE))
    with opened_exporter(None) as (models, exporter):
        plan = exporter.plan(models.find("demo"), Location.parse(f"{ftp_url}/m.tar"))
        with pytest.raises(RemoteError) as raised:
            exporter.run(plan, lambda _count: ftp_server.kill())
    assert ftp_server.password not in str(raised.value)
    assert (ftp_server.root / "m.tar").read_bytes() == old
    ftp_server.start()
    with opened_fetcher(other) as fetcher, pytest.raises(RemoteError):
        fetcher.fetch(Location.parse(f"{ftp_url}/m.tar"), lambda _count: ftp_server.kill())
    assert os.listdir(other) == []


def test_ftp_server_that_comes_back(ftp_server: FtpServer, ftp_url: str, model: Path, other: str) -> None:
    def restart(done: list[int]) -> Callable[[int], None]:
        def tell(_count: int) -> None:
            done.append(1)
            if len(done) == 5:
                ftp_server.kill()
                ftp_server.start()

        return tell

    with opened_exporter(None) as (models, exporter):
        plan = exporter.plan(models.find("demo"), Location.parse(f"{ftp_url}/m.tar"))
        exporter.run(plan, restart([]))
    with opened_fetcher(other) as fetcher:
        fetcher.fetch(Location.parse(f"{ftp_url}/m.tar"), restart([]))
    subprocess.run(["diff", "-r", str(model), f"{other}/demo/v1"], check=True)


def test_ftp_nothing_is_left(ftp_server: FtpServer, ftp_url: str, model: Path) -> None:
    with opened_exporter(None) as (models, exporter):
        plan = exporter.plan(models.find("demo"), Location.parse(f"{ftp_url}/m.tar"))

        def fail(_count: int) -> None:
            raise KeyboardInterrupt

        def change(_count: int) -> None:
            (model / "weights.bin").write_bytes(b"another")

        with pytest.raises(KeyboardInterrupt):
            exporter.run(plan, fail)
        with pytest.raises(SourceChangedError):
            exporter.run(plan, change)
    wait_until(lambda: not os.listdir(ftp_server.root), 5, "nothing is left")


@pytest.mark.usefixtures("ftp_url", "model")
def test_ftp_wrong_password(ftp_server: FtpServer) -> None:
    with pytest.raises(RemoteDeniedError) as raised:
        export_model("demo:v1", f"ftp://me:wrong-secret@127.0.0.1:{ftp_server.port}/m.tar")
    assert "wrong-secret" not in str(raised.value)
    assert str(ftp_server.port) in str(raised.value)


def test_no_space(model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        with opened_exporter(str(model.parent.parent)) as (models, exporter):
            plan = exporter.plan(models.find("demo"), Location.parse(f"{small}/m.tar"))
            with pytest.raises(NoSpaceError, match="no space"):
                exporter.run(plan, lambda _count: None)
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
