"""`bentofs export`, `import` and the other commands on stores in buckets, on real S3 servers."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.buckets import Bucket
from tests.harness import ROOT, ended, home_of, make_model, wait_until
from tests.servers import Proxy, RcloneServer, SeaweedServer


class Shell:
    """Runs `bentofs` on a host of its own, with a store in a bucket."""

    def __init__(self, base: Path, bucket: Bucket) -> None:
        base.mkdir(exist_ok=True)
        self.base = base
        self.bucket = bucket
        self.environment = {**os.environ, **home_of(base), **bucket.environment(), "PYTHONPATH": str(ROOT)}

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "bentofs.mount", *map(str, arguments)]

    def __call__(self, *arguments: str | Path, status: int = 0, store: str | None = None) -> str:
        """Return its standard output, or on failure its standard error. `store`: another store."""
        done = subprocess.run(
            self.command(*arguments, "--store", store or self.bucket.url),
            cwd=self.base, env=self.environment, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == status, done
        assert "Traceback" not in done.stderr
        return done.stderr if status else done.stdout


@pytest.fixture
def shell(seaweed: SeaweedServer, tmp_path: Path) -> Shell:
    return Shell(tmp_path / "host", Bucket(seaweed))


@pytest.fixture
def folder(store: Path) -> Path:
    files = {"weights.bin": os.urandom(9 << 20), "text": b"hello world " * 500_000, "run.sh": b"#!", "empty/": b""}
    return make_model(store, "iris:v1", files, executable=["run.sh"])


def test_every_command_takes_a_url(shell: Shell, folder: Path, store: Path) -> None:
    shell("export", "iris:v1", "m.zip", store=str(store))
    assert "iris:v1: imported" in shell("import", "m.zip")
    assert "iris:v1: unchanged" in shell("import", folder)
    states = [json.loads(line) for line in shell("imports", "--json").splitlines()]
    assert [(state["state"], state["file"]) for state in states] == [
        ("imported", str(shell.base / "m.zip")), ("unchanged", str(folder)),
    ]  # fmt: skip
    assert [model["tag"] for model in json.loads(shell("list", "--json"))] == ["iris:v1"]
    assert "the same as recorded" in shell("verify"), "the import recorded it"
    shell("measure", "iris:v1", "--compression", "auto")
    shell("export", "iris:v1", "out", "--format", "folder")
    subprocess.run(["diff", "-r", str(folder), str(shell.base / "out")], check=True)
    assert os.access(shell.base / "out/run.sh", os.X_OK)


@pytest.mark.parametrize("compression", ["never", "auto", "always"])
def test_the_same_bytes_as_from_a_local_store(shell: Shell, folder: Path, store: Path, compression: str) -> None:
    shell("import", folder)
    for suffix in ("bentomodel", "tar.gz", "zip"):
        for name, where in (("here", str(store)), ("there", None)):
            shell("export", "iris:v1", f"{name}.{suffix}", "--compression", compression, store=where)
        assert (shell.base / f"here.{suffix}").read_bytes() == (shell.base / f"there.{suffix}").read_bytes(), suffix


def test_from_bucket_to_bucket_in_little_memory(shell: Shell, store: Path) -> None:
    make_model(store, "big:v1", {"weights.bin": 160 << 20})
    shell("import", store / "big/v1")
    url = f"s3://{shell.bucket.name}/{shell.bucket.prefix}-other"

    def peak(*arguments: str) -> int:
        """Return a command's peak memory in bytes."""
        command = shell.command(*arguments, "--store", shell.bucket.url, "--quiet")
        with ended(subprocess.Popen(command, env=shell.environment, cwd=shell.base)) as process:
            found = 0
            while process.poll() is None:
                status = Path(f"/proc/{process.pid}/status").read_text()
                if "VmHWM" in status:
                    found = max(found, int(status.split("VmHWM:")[1].split()[0]) << 10)
                time.sleep(0.01)  # between two looks
            assert process.returncode == 0
            return found

    assert peak("export", "big:v1", f"{url}/m.tar") < 200_000_000
    assert peak("import", f"{url}/m.tar") < 200_000_000
    keys = shell.bucket.server.keys(shell.bucket.name, f"{shell.bucket.prefix}-other")
    assert list(keys) == [f"{shell.bucket.prefix}-other/m.tar"]


def test_statuses(shell: Shell, folder: Path, store: Path) -> None:
    shell("import", folder)
    assert "iris:v2" in shell("export", "iris:v2", "x.tar", status=3)
    (folder / "text").write_bytes(b"other")
    assert "--overwrite" in shell("import", folder, status=4)
    assert "replaced" in shell("import", folder, "--overwrite")
    assert "there is no bucket" in shell("list", store="s3://no-such-bucket-here/x", status=3)
    assert "not a known protocol" in shell("list", store="nope://x", status=2)
    assert "no model store" in shell("list", store=str(store / "missing"), status=3)
    shell.environment["AWS_SECRET_ACCESS_KEY"] = "wrong-secret"
    assert "wrong-secret" not in shell("import", folder, status=8)
    shell.environment["AWS_ENDPOINT_URL"] = "http://127.0.0.1:1"
    assert "cannot be reached" in shell("verify", "--timeout", "2", status=7)


def test_no_import_where_conditions_are_ignored(rclone: RcloneServer, tmp_path: Path, folder: Path) -> None:
    shell = Shell(tmp_path / "host", Bucket(rclone))
    assert "ignores conditional writes" in shell("import", folder, status=1)
    assert shell.bucket.paths() == []


def test_an_import_that_is_interrupted(shell: Shell, store: Path, proxies: Callable[[int], Proxy]) -> None:
    make_model(store, "big:v1", {"weights.bin": 60 << 20})
    proxy = proxies(shell.bucket.server.port)
    proxy.bytes_per_second = 8e6
    command = shell.command("import", store / "big/v1", "--store", shell.bucket.url)
    environment = {**shell.environment, **shell.bucket.environment(proxy.endpoint)}
    with ended(subprocess.Popen(command, env=environment, cwd=shell.base, stderr=subprocess.PIPE)) as process:
        wait_until(lambda: proxy.sent > 4 << 20, 30, "some has been sent")
        process.terminate()
        proxy.bytes_per_second = None
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert shell.bucket.paths() == []
    assert [json.loads(line)["state"] for line in shell("imports", "--json").splitlines()] == ["interrupted"]
    unfinished = shell.bucket.server.unfinished_uploads(shell.bucket.name)
    assert not [key for key in unfinished if key.startswith(shell.bucket.prefix)]


def test_many_small_transfers_share_connections(shell: Shell, store: Path, proxies: Callable[[int], Proxy]) -> None:
    tags = [f"m-{number}:v1" for number in range(12)]
    for tag in tags:
        make_model(store, tag, {"w": tag.encode()})
    proxy = proxies(shell.bucket.server.port)
    shell.environment |= shell.bucket.environment(proxy.endpoint)
    base = f"s3://{shell.bucket.name}/{shell.bucket.prefix}-exported/"
    assert shell("export", "--all", base, "--format", "tar", store=str(store)).count(" -> ") == len(tags)
    assert proxy.connections <= 6, "of two jobs, each with one connection or a few"
    before = proxy.connections
    urls = [f"{base}{tag.replace(':', '-')}.tar" for tag in tags]
    (shell.base / "other").mkdir()
    assert shell("import", *urls, store=str(shell.base / "other")).count(": imported") == len(tags)
    assert proxy.connections - before <= 12
    subprocess.run(["diff", "-r", str(store), str(shell.base / "other")], check=True)


def test_a_model_yaml_that_is_executable(shell: Shell, store: Path) -> None:
    """A model.yaml is executable when it comes from a memory stick, like all files there."""
    folder = make_model(store, "iris:v1", {"run.sh": b"#!"}, executable=["run.sh", "model.yaml"])
    assert "iris:v1: imported" in shell("import", folder)
    assert "iris:v1: unchanged" in shell("import", folder)
