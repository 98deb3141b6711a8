"""`incoming/` of stores in buckets: copies by one host or by several at once, and the bucket's content afterwards. Two
hosts are two daemons with homes of their own."""

import errno
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.buckets import Bucket
from tests.harness import ROOT, Mounted, home_of, make_model, run, wait_until
from tests.interop.conftest import Judge
from tests.servers import Proxy, RcloneServer, SeaweedServer
from tests.serving import Served

Mount = Callable[..., Mounted]

OPTIONS = ("--ttl", "1", "--timeout", "10")


@pytest.fixture
def bucket(seaweed: SeaweedServer) -> Bucket:
    return Bucket(seaweed)


def archive_of(base: Path, tag: str, files: dict[str, bytes], **arguments: object) -> Path:
    """Make a tar of a model, and the model's own folder beside it."""
    folder = make_model(base, tag, files, **arguments)  # type: ignore[arg-type]
    path = base / f"{tag.replace(':', '-')}.tar"
    run("tar", "cf", path, "-C", folder, ".")
    return path


def cp(source: Path, mount: Mounted) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["cp", source, mount.path / "incoming/"], capture_output=True, text=True, timeout=120, check=False
    )


def test_an_import_is_there_on_both_hosts_and_as_from_a_local_store(
    store: Path, tmp_path: Path, bucket: Bucket, mounted: Mount
) -> None:
    noise = random.Random(7).randbytes
    files = {"big": noise(40 << 20), "a/b": b"text", "run.sh": b"#!/bin/sh\n", "empty/": b"", "zero": b""}
    first = archive_of(tmp_path / "other", "m:v1", files, executable=["run.sh"])
    one = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    two = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    local = mounted(store, options=["--compression", "never"])
    for mount in (one, local):
        assert cp(first, mount).returncode == 0
    assert one.shows("m:v1"), "at once where it was copied in"
    assert os.readlink(one.path / "models/m/latest") == "v1"
    wait_until(lambda: two.shows("m:v1"), 5, "the other host shows it")
    for suffix in (".tar", ".zip", ".tar.gz", ".bentomodel"):
        expected = local.archive("m:v1", suffix).read_bytes()
        assert one.archive("m:v1", suffix).read_bytes() == expected
        assert two.archive("m:v1", suffix).read_bytes() == expected
    assert sorted(bucket.paths()) == [
        "m/.v1.bentofs.json", "m/latest", "m/v1/a/b", "m/v1/big", "m/v1/model.yaml", "m/v1/run.sh", "m/v1/zero",
    ]  # fmt: skip
    assert cp(first, two).returncode == 0, "the same once more is no error"
    plain = archive_of(tmp_path / "without its exec bit", "m:v1", files)
    assert cp(plain, two).returncode == 0, "an exec bit is no content"
    other = archive_of(tmp_path / "third", "m:v1", {"big": b"other"})
    refused = cp(other, two)
    assert refused.returncode == 1
    assert "File exists" in refused.stderr
    two.allow_log("was not imported")
    newer = archive_of(tmp_path / "other", "m:v2", {"x": b"x"}, creation_time="2026-05-05T00:00:00+00:00")
    older = archive_of(tmp_path / "other", "m:v0", {"x": b"x"}, creation_time="2020-05-05T00:00:00+00:00")
    for archive in (newer, older):
        assert cp(archive, two).returncode == 0
    assert bucket.get("m/latest") == b"v2"
    assert not bucket.server.unfinished_uploads(bucket.name)


def test_a_server_of_a_bucket(tmp_path: Path, bucket: Bucket) -> None:
    """`bentofs serve` reads and imports as a mount does."""
    tar = archive_of(tmp_path / "made", "m:v1", {"w": random.Random(8).randbytes(3 << 20)})
    with Served(bucket.url, tmp_path, *OPTIONS, environment=bucket.environment()) as server:
        sent = server.ask("PUT", "/incoming/m.tar", body=tar.read_bytes())
        assert (sent.status, json.loads(sent.body)["outcome"]) == (201, "imported")
        assert bucket.get("m/v1/w") == random.Random(8).randbytes(3 << 20)
        again = server.ask("PUT", "/incoming/again.tar", body=tar.read_bytes())
        assert (again.status, json.loads(again.body)["outcome"]) == (200, "unchanged")
        whole = server.get("/models/m/latest.tar").body
        assert server.get("/models/m/v1/m-v1.tar", Range="bytes=1000000-2000000").body == whole[1_000_000:2_000_001]


def test_a_copy_of_the_bucket_is_a_store_for_bentoml(tmp_path: Path, bucket: Bucket, mounted: Mount) -> None:
    one = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    assert cp(archive_of(tmp_path / "other", "m:v1", {"x": b"x"}), one).returncode == 0
    copy = tmp_path / "copy/bentoml/models"
    # `latest` goes last. Else the mount waits for a minute of quiet, as it does for an older BentoML that still saves.
    for path in sorted(bucket.paths(), key=lambda path: path.endswith("/latest")):
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(bucket.get(path))
    local = mounted(copy, options=["--read-only"])
    assert os.listdir(local.path / "models") == ["m"]
    assert "m:v1" in Judge("1.4").cli(tmp_path / "copy", "models", "list", "-o", "json")


def test_many_hosts_at_the_same_and_at_different_tags(tmp_path: Path, bucket: Bucket, mounted: Mount) -> None:
    """Each tag has exactly one winner. Nobody ever sees a mixture, and nothing of a loser stays."""
    mounts = [mounted(bucket.url, environment=bucket.environment(), options=OPTIONS) for _ in range(2)]
    for mount in mounts:
        mount.allow_log("was not imported")
    rounds, archives = 4, {}
    for host in range(2):
        for number in range(rounds):
            content = {f"of-{host}-{part}": bytes([host]) * 300_000 for part in range(5)}
            content["both"] = bytes([host]) * 1_000_000
            archives[host, number] = archive_of(tmp_path / f"of-{host}", f"same:v{number}", content)
        archives[host, rounds] = archive_of(tmp_path / f"of-{host}", f"own-{host}:v1", {"x": b"x"})
    seen: list[str] = []
    ended = threading.Event()

    def watch(mount: Mounted) -> None:
        while not ended.is_set():
            for number in range(rounds):
                folder = mount.path / f"models/same/v{number}/files"
                try:
                    found = {name: (folder / name).read_bytes()[:1] for name in os.listdir(folder)}
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ESTALE):
                        seen.append(f"{error}")
                    continue
                found.pop("model.yaml", None)
                if len(found) != 6 or len(set(found.values())) != 1:
                    seen.append(f"{number}: {found}")
            time.sleep(0.05)  # between two looks

    watchers = [threading.Thread(target=watch, args=(mount,)) for mount in mounts]
    for watcher in watchers:
        watcher.start()
    with ThreadPoolExecutor(10) as pool:
        copies = {key: pool.submit(cp, path, mounts[key[0]]) for key, path in archives.items()}
        outcomes = {key: copy.result().returncode for key, copy in copies.items()}
    time.sleep(1.5)  # let the listings expire: the watchers look at what is there then, too
    ended.set()
    for watcher in watchers:
        watcher.join(20)
    assert not seen
    assert [outcomes[host, rounds] for host in range(2)] == [0, 0]
    paths = bucket.paths()
    for number in range(rounds):
        assert sorted(outcomes[host, number] for host in range(2)) == [0, 1]
        winner = 0 if outcomes[0, number] == 0 else 1
        names = sorted(path.rpartition("/")[2] for path in paths if path.startswith(f"same/v{number}/"))
        assert names == ["both", "model.yaml", *(f"of-{winner}-{part}" for part in range(5))]
        assert bucket.get(f"same/v{number}/both") == bytes([winner]) * 1_000_000
    assert not [path for path in paths if "claim" in path]


def test_the_same_content_from_two_hosts_at_once_is_no_error(tmp_path: Path, bucket: Bucket, mounted: Mount) -> None:
    mounts = [mounted(bucket.url, environment=bucket.environment(), options=OPTIONS) for _ in range(2)]
    archive = archive_of(tmp_path / "other", "m:v1", {"x": bytes(5_000_000)})
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda mount: cp(archive, mount), mounts))
    assert [copy.returncode for copy in done] == [0, 0]
    states = [state for mount in mounts for state in _states(mount, bucket)]
    assert sorted(states) == ["imported", "unchanged"]


def _states(mount: Mounted, bucket: Bucket) -> list[str]:
    """Return the states that `bentofs imports` prints on a mount's host."""
    command = [sys.executable, "-m", "bentofs.mount", "imports", "--json", "--store", bucket.url]
    done = run(*command, cwd=ROOT, env={**os.environ, **home_of(mount.base), **bucket.environment()})
    return [json.loads(line)["state"] for line in done.stdout.splitlines()]


def test_overwriting(tmp_path: Path, bucket: Bucket, mounted: Mount) -> None:
    mount = mounted(bucket.url, environment=bucket.environment(), options=[*OPTIONS, "--overwrite"])
    for content in ({"old": b"1", "both": b"1"}, {"new": b"2", "both": b"2"}):
        assert cp(archive_of(tmp_path / str(len(content)) / "".join(content), "m:v1", content), mount).returncode == 0
    assert sorted(path for path in bucket.paths("m/v1/")) == ["m/v1/both", "m/v1/model.yaml", "m/v1/new"]
    assert (mount.path / "models/m/v1/files/both").read_bytes() == b"2"


def killed_in_the_middle(
    archive: Path, after: int, bucket: Bucket, mounted: Mount, proxies: Callable[[int], Proxy]
) -> None:
    """Copy an archive in by a daemon that is killed when so many bytes have been uploaded."""
    proxy = proxies(bucket.server.port)
    one = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=OPTIONS)
    proxy.trouble_when = lambda proxy: "hang" if proxy.sent > after else None
    copying = threading.Thread(target=cp, args=(archive, one))
    copying.start()
    wait_until(lambda: proxy.trouble, 30, "it is being uploaded")
    one.kill()
    copying.join(30)


def test_what_a_crash_left_is_cleaned_up(
    tmp_path: Path, bucket: Bucket, mounted: Mount, proxies: Callable[[int], Proxy]
) -> None:
    """A daemon killed in the middle of an upload leaves no model. The next importer takes over."""
    archive = archive_of(tmp_path / "other", "m:v1", {f"part-{number}": bytes(3_000_000) for number in range(10)})
    killed_in_the_middle(archive, 10_000_000, bucket, mounted, proxies)
    assert "m/.v1.bentofs-claim" in bucket.paths()
    bucket.put("m/v1/left-behind", b"x")
    two = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    assert not two.shows("m:v1")
    bucket.delete("m/.v1.bentofs-claim")  # like an expired claim, see tests/store/publishing/test_lease.py
    assert cp(archive, two).returncode == 0
    assert sorted(bucket.paths("m/v1/")) == ["m/v1/model.yaml", *(f"m/v1/part-{number}" for number in range(10))]
    assert two.shows("m:v1")


def test_parts_that_a_crash_left_are_ended_by_whoever_is_next(
    tmp_path: Path, bucket: Bucket, mounted: Mount, proxies: Callable[[int], Proxy]
) -> None:
    """The next importer ends the parts, also on another host where nobody noted them."""
    archive = archive_of(tmp_path / "other", "m:v1", {"large": bytes(60_000_000)})
    killed_in_the_middle(archive, 30_000_000, bucket, mounted, proxies)

    def unfinished() -> list[str]:
        return [key for key in bucket.server.unfinished_uploads(bucket.name) if key.startswith(bucket.prefix)]

    assert unfinished() == [f"{bucket.prefix}/m/v1/large"]
    two = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    bucket.delete("m/.v1.bentofs-claim")  # like an expired claim
    assert cp(archive, two).returncode == 0
    assert unfinished() == []


def test_a_server_that_ignores_conditions(rclone: RcloneServer, mounted: Mount) -> None:
    bucket = Bucket(rclone)
    mount = mounted(bucket.url, environment=bucket.environment(), options=OPTIONS)
    mount.expect_log("no incoming/ in this mount: .* ignores conditional writes")
    assert "incoming" not in os.listdir(mount.path)
    assert bucket.paths() == []


def test_a_server_that_dies_during_an_upload(
    tmp_path: Path, bucket: Bucket, mounted: Mount, proxies: Callable[[int], Proxy]
) -> None:
    proxy = proxies(bucket.server.port)
    options = ["--ttl", "1", "--timeout", "3"]
    mount = mounted(bucket.url, environment=bucket.environment(proxy.endpoint), options=options)
    mount.allow_log("cannot be reached|was not imported")
    archive = archive_of(tmp_path / "other", "m:v1", {f"part-{number}": bytes(9_000_000) for number in range(10)})
    proxy.trouble_when = lambda proxy: "reset" if proxy.sent > 20_000_000 else None
    failed = cp(archive, mount)
    assert failed.returncode == 1
    assert "Input/output error" in failed.stderr
    proxy.trouble = proxy.trouble_when = None
    assert "m/v1/model.yaml" not in bucket.paths()
    wait_until(lambda: cp(archive, mount).returncode == 0, 15, "it goes well soon, whatever was left behind", 1.0)
    assert len(bucket.paths("m/v1/")) == 11
    assert not [path for path in bucket.paths() if "claim" in path]
