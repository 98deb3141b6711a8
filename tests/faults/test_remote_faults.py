"""Stores in buckets whose server is in trouble: errors within bounded time, one clear line in the log, and nothing that
stays stuck."""

import errno
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.buckets import Bucket
from tests.harness import Mounted, make_model, wait_until
from tests.servers import Proxy, RcloneServer, SeaweedServer
from tests.waiting import wait_until_hanging

Mount = Callable[..., Mounted]

TIMEOUT = 4.0
OPTIONS = ("--read-only", "--ttl", "1", "--timeout", str(TIMEOUT), "--cache-size", "1M")
CONTENT = random.Random(5).randbytes(30 << 20)


@pytest.fixture
def bucket(seaweed: SeaweedServer, store: Path) -> Bucket:
    bucket = Bucket(seaweed)
    make_model(store, "m:v1", {"w": CONTENT})
    bucket.upload(store)
    return bucket


@pytest.fixture
def proxy(bucket: Bucket, proxies: Callable[[int], Proxy]) -> Iterator[Proxy]:
    made = proxies(bucket.server.port)
    yield made
    made.trouble = made.trouble_when = None


def _must_be_eio(error: OSError) -> None:
    if error.errno != errno.EIO:
        raise error


def file_of(mount: Mounted) -> Path:
    return mount.path / "models/m/v1/files/w"


def test_connections_that_are_reset_in_the_middle(bucket: Bucket, proxy: Proxy, mounted: Mount) -> None:
    """Readers notice nothing when connections are reset in the middle."""
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=OPTIONS)
    resets: list[int] = []

    def reset_now_and_then(proxy: Proxy) -> None:
        if proxy.received // (5 << 20) > len(resets):
            resets.append(proxy.received)
            proxy.reset()

    proxy.trouble_when = reset_now_and_then
    assert file_of(mount).read_bytes() == CONTENT
    assert len(resets) > 2


def test_a_server_that_is_busy_for_a_while(bucket: Bucket, proxy: Proxy, mounted: Mount) -> None:
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=OPTIONS)
    proxy.trouble = "503"
    proxy.reset()
    threading.Timer(1.5, lambda: setattr(proxy, "trouble", None)).start()
    assert file_of(mount).read_bytes() == CONTENT
    mount.wait_for_log("503.*asked again")


def test_a_server_that_is_slow(bucket: Bucket, proxy: Proxy, mounted: Mount) -> None:
    """A request may take longer than a silent server is waited for, while its bytes come."""
    options = [*OPTIONS, "--cache-size", "256M"]
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=options)
    with file_of(mount).open("rb") as file:
        content = file.read(10 << 20)
        proxy.bytes_per_second = 200_000  # for each connection
        content += file.read(10 << 20)
    assert content == CONTENT[: len(content)]
    assert "asked again" not in mount.log()


@pytest.mark.parametrize("trouble", ["503", "refuse", "hang"])
def test_a_server_that_stays_in_trouble(trouble: str, bucket: Bucket, proxy: Proxy, mounted: Mount) -> None:
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=OPTIONS)
    mount.expect_log("cannot be reached")
    path = file_of(mount)
    with path.open("rb", buffering=0) as file:
        assert file.read(1000) == CONTENT[:1000]
        proxy.trouble = trouble
        if trouble != "hang":
            proxy.reset()
        started = time.monotonic()
        with pytest.raises(OSError, match="Input/output") as raised:
            file.read()
        assert raised.value.errno == errno.EIO
        assert time.monotonic() - started < 3 * TIMEOUT
        readme = time.monotonic()
        assert os.listdir(mount.path) != []
        assert (mount.path / "README.txt").read_bytes()
        assert time.monotonic() - readme < 2, "what needs no server goes on"
        with pytest.raises(OSError, match="Input/output"):
            os.listdir(mount.path / "models")
        proxy.trouble = None
        proxy.reset()
        wait_until(lambda: _reads(path), 20, "it comes back by itself")


def test_no_model_is_missing_from_a_listing_because_the_server_is_in_trouble(
    bucket: Bucket, proxy: Proxy, store: Path, mounted: Mount
) -> None:
    """A missing model would be taken for deleted, for example by `rsync --delete`."""
    make_model(store, "m:v2", {"w": b"2"})
    make_model(store, "n:v1", {"w": b"3"})
    bucket.upload(store)
    options = [*OPTIONS, "--ttl", "60"]
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=options)
    mount.expect_log("cannot be reached")
    for name in ("m", "n"):
        (mount.path / "models" / name).stat()  # this lists, and looks into no model
    proxy.trouble = "503"
    proxy.reset()
    for folder in ("models/m", "by-format/folder/m"):
        try:
            assert {"v1", "v2"} <= set(os.listdir(mount.path / folder))
        except OSError as error:
            _must_be_eio(error)
    assert sorted(os.listdir(mount.path / "by-format/tar/m")) == ["m-v1.tar", "m-v2.tar"]
    assert sorted(os.listdir(mount.path / "models")) == ["m", "n"]
    with pytest.raises(OSError, match="Input/output"):
        (mount.path / "models/m/v2").stat()
    proxy.trouble = None
    wait_until(lambda: _reads(file_of(mount)), 20, "it comes back by itself")


@pytest.mark.parametrize("arguments", [(), ("--json",), ("m",)], ids=" ".join)
def test_a_list_that_lacks_models_ends_with_an_error(
    bucket: Bucket, proxy: Proxy, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """An empty list that ends with 0 would be taken for an empty store."""
    proxy.trouble_when = lambda proxy: "503" if proxy.received else None  # the names come, and nothing after them
    environment = {**os.environ, **bucket.environment(proxy.endpoint), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "bentofs.mount", "list", *arguments, "--store", bucket.url, "--timeout", "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 7, done
    assert "answers 503" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


def _reads(path: Path) -> bool:
    try:
        return path.read_bytes() == CONTENT
    except OSError as error:
        _must_be_eio(error)
        return False


def test_a_mount_whose_server_hangs_can_be_ended(bucket: Bucket, proxy: Proxy, mounted: Mount) -> None:
    options = [*OPTIONS, "--timeout", "120"]
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=options)
    proxy.trouble = "hang"
    outcome: list[OSError] = []

    def look() -> None:
        try:
            os.listdir(mount.path / "models")
        except OSError as error:
            outcome.append(error)

    waiting = threading.Thread(target=look)
    waiting.start()
    wait_until_hanging(waiting.native_id)
    mount.allow_log(".")  # a request that is cut off may be logged
    started = time.monotonic()
    mount.stop()
    assert time.monotonic() - started < 10
    waiting.join(10)
    assert outcome


def test_a_server_that_dies_and_comes_back(rclone: RcloneServer, store: Path, mounted: Mount) -> None:
    bucket = Bucket(rclone)
    make_model(store, "m:v1", {"w": CONTENT})
    bucket.upload(store)
    mount = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    mount.expect_log("cannot be reached")
    assert file_of(mount).read_bytes() == CONTENT
    rclone.kill()
    wait_until(lambda: not _lists(mount), 20, "the listing is no longer believed")
    rclone.start()
    wait_until(lambda: _lists(mount), 20, "it comes back by itself")
    assert file_of(mount).read_bytes() == CONTENT


def _lists(mount: Mounted) -> bool:
    try:
        return os.listdir(mount.path / "models") == ["m"]
    except OSError as error:
        _must_be_eio(error)
        return False


def test_credentials_that_are_rejected(bucket: Bucket, tmp_path: Path) -> None:
    environment = {**bucket.environment(), "AWS_SECRET_ACCESS_KEY": "not-the-secret-key"}
    mount = Mounted(bucket.url, tmp_path / "mount", environment=environment, options=OPTIONS)
    with pytest.raises(AssertionError, match="exited with 8"):
        mount.start()
    assert f"access to {bucket.url} is denied" in mount.log()
    assert "Traceback" not in mount.log()
    assert "not-the-secret-key" not in mount.log()


def test_credentials_that_are_rejected_from_now_on(rclone: RcloneServer, store: Path, mounted: Mount) -> None:
    bucket = Bucket(rclone)
    make_model(store, "m:v1", {"w": b"1"})
    bucket.upload(store)
    mount = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    mount.expect_log("access to .* is denied")
    rclone.kill()
    rclone.secret_key = rclone.secret_key[::-1]
    rclone.start()

    def is_denied() -> bool:
        try:
            os.listdir(mount.path / "models")
        except PermissionError:
            return True
        except OSError as error:  # asked while the server was away
            mount.allow_log("cannot be reached")
            _must_be_eio(error)
        return False

    wait_until(is_denied, 20, "EACCES")
