"""Mounts of stores in buckets, on real S3 servers: content, traffic and secrets."""

import contextlib
import errno
import getpass
import os
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.buckets import Bucket
from tests.harness import ROOT, Mounted, home_of, make_model, run, wait_until
from tests.interop.conftest import SshServer
from tests.servers import FtpServer, Proxy, RcloneServer, SeaweedServer

Mount = Callable[..., Mounted]

TTL = 2.0
READ_ONLY = ("--read-only", "--ttl", str(TTL))


class StaleError(Exception):
    """A read got ESTALE."""


@pytest.fixture
def bucket(seaweed: SeaweedServer) -> Bucket:
    return Bucket(seaweed)


def command(base: Path, *arguments: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bentofs.mount", *arguments],
        cwd=ROOT,
        env={**os.environ, **home_of(base), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def some_models(store: Path) -> None:
    noise = random.Random(1).randbytes
    files = {"weights.bin": noise(5_000_000), "a/b/c.txt": b"text", "z": b"", "run.sh": b"#!/bin/sh\n", "empty/": b""}
    make_model(store, "iris:v1", files, executable=["run.sh"])
    make_model(store, "iris:v2", {"x": b"x" * 1000}, creation_time="2026-02-02T00:00:00+00:00")
    make_model(store, "iris-a:v1", {f"part-{number:03}": noise(30_000) for number in range(60)})


@pytest.mark.parametrize("kind", ["seaweed", "rclone"])
def test_archives_are_the_same_as_from_a_local_store(
    kind: str, store: Path, mounted: Mount, request: pytest.FixtureRequest
) -> None:
    some_models(store)
    server: SeaweedServer | RcloneServer = request.getfixturevalue(kind)
    bucket = Bucket(server)
    bucket.upload(store)
    for tag in ("iris:v1", "iris:v2", "iris-a:v1"):
        bucket.add_manifest(tag, store / tag.replace(":", "/"))
    local = mounted(store, options=["--compression", "never"])
    remote = mounted(bucket.url, environment=bucket.environment(), options=READ_ONLY)

    def found(mount: Mounted) -> list[str]:
        tree = [mount.path / "models", mount.path / "by-format"]
        return sorted(str(path.relative_to(mount.path)) for top in tree for path in top.rglob("*"))

    assert found(remote) == found(local)
    assert os.readlink(remote.path / "models/iris/latest") == "v2"
    for path in found(local):
        here, there = local.path / path, remote.path / path
        if here.is_file():
            assert there.stat().st_size == here.stat().st_size, path
            assert there.stat().st_mode == here.stat().st_mode, path
            assert there.read_bytes() == here.read_bytes(), path
    run("sha256sum", "-c", "SHA256SUMS", cwd=remote.path / "models/iris/v1")


def test_a_model_without_manifest(store: Path, bucket: Bucket, mounted: Mount) -> None:
    """A model without a manifest has no executable files. Its CRC-32s are measured by reading it."""
    some_models(store)
    bucket.upload(store)
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/iris/v1/marked/", Body=b"")
    mount = mounted(bucket.url, environment=bucket.environment(), options=READ_ONLY)
    folder = mount.path / "models/iris/v1/files"
    assert (folder / "run.sh").stat().st_mode & 0o777 == 0o644
    assert (folder / "marked").is_dir()
    assert not (folder / "empty").exists()
    with zipfile.ZipFile(mount.archive("iris:v1", ".zip")) as archive:
        assert archive.testzip() is None
        assert archive.read("weights.bin") == (store / "iris/v1/weights.bin").read_bytes()


def test_a_single_member_moves_little(
    store: Path, bucket: Bucket, mounted: Mount, proxies: Callable[[int], Proxy]
) -> None:
    folder = make_model(store, "big:v1", {"weights.bin": random.Random(2).randbytes(150 << 20), "zz.txt": b"the end"})
    bucket.upload(store)
    bucket.add_manifest("big:v1", folder)
    proxy = proxies(bucket.server.port)
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=READ_ONLY)
    device = os.stat(mount.path).st_dev
    assert Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").read_text() == "128\n"
    before = proxy.received
    archive = mount.archive("big:v1", ".zip")
    assert "name: big" in run("unzip", "-p", archive, "model.yaml").stdout
    assert run("unzip", "-p", archive, "zz.txt").stdout == "the end"
    assert run("unzip", "-l", archive).stdout.count("weights.bin") == 1
    assert run("tail", "-c", "1024", mount.archive("big:v1", ".tar"), seconds=20)
    assert proxy.received - before < 2 << 20
    before = proxy.received
    run("cp", archive, store.parent / "copy.zip")
    assert proxy.received - before < 160 << 20, "nothing is fetched twice"


def test_sums_fetch_each_object_once(
    store: Path, tmp_path: Path, bucket: Bucket, mounted: Mount, proxies: Callable[[int], Proxy]
) -> None:
    """The sums of all formats take one transfer of the model. So does an export with its sum, to a disk or a bucket."""
    size = 40 << 20
    noise = random.Random(8).randbytes
    files: dict[str | bytes, bytes | int] = {"weights.bin": noise(size), **{f"s/{at}": noise(9000) for at in range(40)}}
    folder = make_model(store, "big:v1", files)
    bucket.upload(store)
    bucket.add_manifest("big:v1", folder)
    proxy = proxies(bucket.server.port)
    environment = bucket.environment(proxy.endpoint)
    mount = mounted(bucket.url, environment=environment, options=[*READ_ONLY, "--cache-size", "4M"])
    before = proxy.received
    sums = (mount.path / "models/big/v1/SHA256SUMS").read_text()
    assert size < proxy.received - before < 1.1 * size
    assert len(sums.splitlines()) == 4

    def export(target: Path | str, *options: str) -> int:
        """Return the bytes that came from the server."""
        before = proxy.received
        arguments = ("export", "big:v1", str(target), "--store", bucket.url, *options)
        done = command(tmp_path / "home", *arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return proxy.received - before

    copy = f"s3://{bucket.name}/{bucket.prefix}-copies/big-v1.zip"
    without = export(copy)  # by plain HTTP, a part is read for its signature, and some of it is fetched again
    assert size < export(copy, "--sha256") < without + size / 2
    assert size < export(tmp_path / "big-v1.tar", "--sha256") < 1.1 * size
    assert (tmp_path / "big-v1.tar.sha256").read_text() in sums
    run("sha256sum", "-c", "big-v1.tar.sha256", cwd=tmp_path)


def test_a_model_replaced_under_a_reader(store: Path, bucket: Bucket, mounted: Mount) -> None:
    content = random.Random(3).randbytes(40 << 20)
    make_model(store, "m:v1", {"w": content})
    bucket.upload(store)
    mount = mounted(
        bucket.url, environment=bucket.environment(), options=[*READ_ONLY, "--cache-size", "1M"], formats="tar"
    )
    path = mount.archive("m:v1", ".tar")
    with path.open("rb", buffering=0) as file:
        begin = file.read(1 << 20)
        assert begin[-1000:] in content
        time.sleep(1.1)  # the server counts in seconds
        bucket.put("m/v1/w", content[::-1])
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError, match="Stale") as raised:
            file.read()
        assert raised.value.errno == errno.ESTALE

    def read(path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise (StaleError if error.errno == errno.ESTALE else AssertionError)(error) from error

    def is_new() -> bool:
        with contextlib.suppress(StaleError):
            return content[::-1] in read(path)
        return False

    wait_until(is_new, 10 * TTL, "the new model is shown")


def test_what_others_do_is_seen_in_time(store: Path, bucket: Bucket, mounted: Mount) -> None:
    make_model(store, "m:v1", {"w": b"1"})
    make_model(store, "m:v2", {"w": b"2"}, creation_time="2026-03-03T00:00:00+00:00")
    mount = mounted(bucket.url, environment=bucket.environment(), options=READ_ONLY)
    assert os.listdir(mount.path / "models") == []
    bucket.put("m/v1/w", b"1")
    time.sleep(TTL + 1)  # the listing has expired
    assert os.listdir(mount.path / "models") == [], "no model.yaml, no model"
    bucket.put("m/v1/model.yaml", (store / "m/v1/model.yaml").read_bytes())
    wait_until(lambda: mount.shows("m:v1"), TTL + 2, "m:v1 is shown")
    bucket.put("m/v2/w", b"2")
    bucket.put("m/v2/model.yaml", (store / "m/v2/model.yaml").read_bytes())
    bucket.put("m/latest", b"v2")
    latest = mount.path / "models/m/latest"
    wait_until(lambda: mount.shows("m:v2") and os.readlink(latest) == "v2", TTL + 2, "m:v2 is the latest")
    bucket.delete("m/v2/model.yaml")
    wait_until(lambda: not mount.shows("m:v2"), TTL + 2, "m:v2 is gone")


def test_a_prefix_that_holds_nothing_yet_and_a_bucket_that_is_not_there(
    bucket: Bucket, mounted: Mount, tmp_path: Path
) -> None:
    mount = mounted(bucket.url, environment=bucket.environment(), options=READ_ONLY)
    assert os.listdir(mount.path / "models") == []
    (tmp_path / "mnt").mkdir()
    done = command(
        tmp_path, "mount", str(tmp_path / "mnt"), "--store", "s3://no-such-bucket-here/x",
        environment=bucket.environment(),
    )  # fmt: skip
    assert done.returncode == 3
    assert "there is no bucket no-such-bucket-here" in done.stderr


def test_in_the_background_without_showing_secrets(store: Path, bucket: Bucket, tmp_path: Path) -> None:
    make_model(store, "m:v1", {"w": b"1"})
    bucket.upload(store)
    environment = {
        name: value for name, value in bucket.environment().items() if "KEY" not in name and "ENDPOINT" not in name
    }
    secret = bucket.server.secret_key
    options = [f"key={bucket.server.access_key}", f"secret={secret}", f"endpoint_url={bucket.server.endpoint}"]
    given = [part for option in options for part in ("--storage-option", option)]
    point = tmp_path / "mnt"
    point.mkdir()
    done = command(tmp_path, "mount", str(point), "--store", bucket.url, "--read-only", *given, environment=environment)
    assert done.returncode == 0, done.stderr
    try:
        assert os.listdir(point / "models/m") != []
        titles = b"".join(
            path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _mentions(path, str(point))
        )
        assert bucket.url.encode() in titles, "the daemon was found"
        assert secret.encode() not in titles
        state = list((tmp_path / "state").rglob("*"))
        shown = b"".join(path.read_bytes() for path in state if path.is_file())
        shown += (point / "README.txt").read_bytes() + Path("/proc/self/mountinfo").read_bytes()
        shown += done.stdout.encode() + done.stderr.encode()
        assert bucket.url.encode() in shown
        assert secret.encode() not in shown
    finally:
        assert command(tmp_path, "unmount", str(point), environment={}).returncode == 0


def _mentions(path: Path, text: str) -> bool:
    try:
        return text.encode() in path.read_bytes()
    except OSError:  # ended meanwhile
        return False


def test_list_and_verify(store: Path, bucket: Bucket, tmp_path: Path) -> None:
    some_models(store)
    bucket.upload(store)
    environment = bucket.environment()
    listed = command(tmp_path, "list", "--store", bucket.url, environment=environment)
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == ["iris:v1", "iris:v2", "iris-a:v1"]
    for answer in ("recorded", "the same"):
        verified = command(tmp_path, "verify", "iris:v1", "--store", bucket.url, environment=environment)
        assert answer in verified.stdout, verified.stderr
    time.sleep(1.1)  # the server counts in seconds
    bucket.put("iris/v1/z", b"not empty any more")
    verified = command(tmp_path, "verify", "iris:v1", "--store", bucket.url, environment=environment)
    assert verified.returncode == 5
    assert "differs: z" in verified.stdout


def test_other_file_systems(store: Path, ftp_server: FtpServer, mounted: Mount) -> None:
    some_models(store)
    run("cp", "-r", store, ftp_server.root / "models")
    options = [*READ_ONLY, "--storage-option", "username=some@one", "--storage-option", "password=p@ss/w:rd%"]
    mount = mounted(f"ftp://127.0.0.1:{ftp_server.port}/models", options=options)
    for path in ("weights.bin", "a/b/c.txt", "z"):
        assert (mount.path / "models/iris/v1/files" / path).read_bytes() == (store / "iris/v1" / path).read_bytes()
    run("unzip", "-t", mount.archive("iris-a:v1", ".zip"))


def test_a_store_on_an_ssh_server(store: Path, ssh_server: SshServer, mounted: Mount, tmp_path: Path) -> None:
    """A store on an ssh server is mounted only if the server's key is known."""
    some_models(store)
    url = f"sftp://{getpass.getuser()}@127.0.0.1:{ssh_server.port}{store}?identity={quote(str(ssh_server.key))}"
    refused = command(tmp_path, "list", "--store", url, environment={})
    assert refused.returncode == 8
    assert "host key of" in refused.stderr
    mount = mounted(f"{url}&known_hosts={quote(str(ssh_server.known_hosts))}", options=READ_ONLY)
    for path in ("weights.bin", "a/b/c.txt", "z"):
        assert (mount.path / "models/iris/v1/files" / path).read_bytes() == (store / "iris/v1" / path).read_bytes()
    run("unzip", "-t", mount.archive("iris-a:v1", ".zip"))
