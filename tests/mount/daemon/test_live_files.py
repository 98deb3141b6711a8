"""`.bentofs/` in a mount: status, metrics and log, true at each opening, through both engines."""

import errno
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bentofs.mount.daemon.metrics import as_metrics
from bentofs.mount.view.traffic import Total, Traffic
from tests.harness import Mounted, make_model, run, wait_until
from tests.incoming import cp, imports, made_tar
from tests.store.at_once import in_threads

Mount = Callable[..., Mounted]


@pytest.mark.parametrize("engine", ["kernel", "libfuse2"])
def test_what_a_mount_tells_of_itself(engine: str, store: Path, mounted: Mount, tmp_path: Path) -> None:
    make_model(store, "m:v1", {"w.bin": os.urandom(2_000_000)})
    make_model(store, "m:v2", {"x": b"x"})
    mount = mounted(store, options=["--engine", engine], own_process=True)
    own = mount.path / ".bentofs"
    assert sorted(os.listdir(own)) == ["log", "metrics", "status.json"]
    assert sorted(os.listdir(mount.path)) == ["README.txt", "by-format", "incoming", "models"], "it is not listed"
    assert os.stat(mount.path).st_nlink == 2 + 3
    assert [stat.S_IMODE((own / name).stat().st_mode) for name in os.listdir(own)].count(0o600) == 2

    begin = status_of(mount)
    assert (begin["pid"], begin["engine"], begin["models"]) == (mount.pid, engine, 2)
    assert (begin["store"], begin["mountpoint"]) == (str(store), str(mount.path))
    assert ("max_pages" in begin["features"]) == (engine == "kernel")
    assert bool(begin["kernel_nodes"]) == (engine == "kernel")

    archive = mount.archive("m:v1", ".zip")
    size = len(archive.read_bytes())
    (mount.path / "models/m/v1/SHA256SUMS").read_bytes()
    with (mount.path / "README.txt").open("rb") as still_open:
        still_open.read()
        reads = until(mount, lambda told: "other" in told["reads"])["reads"]
    assert (reads["zip"]["opens"], reads["zip"]["bytes"]) == (1, size)
    assert 1 <= reads["zip"]["reads"] <= size // 4096 + 1
    assert reads["checksums"]["opens"] == reads["other"]["opens"] == 1

    mount.expect_log("bad.tar was not imported", times=1)
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 100)
    assert cp(tmp_path / "bad.tar", mount.path / "incoming").returncode == 1
    run("cp", made_tar(tmp_path, "new:v1"), mount.path / "incoming")
    with (mount.path / "incoming/half.tar.part").open("wb", buffering=0) as half:
        half.write(b"x" * 100)
        told = until(mount, lambda told: told["imports"]["running"] == 1)
    assert {name: count for name, count in told["imports"]["ended"].items() if count} == {"imported": 1, "refused": 1}
    assert (told["problems"]["warnings"], told["problems"]["errors"]) == (1, 0)
    (last,) = told["problems"]["last"]
    assert imports(mount)[0]["request"] in last["message"]
    assert last["level"] == "WARNING"

    log = (own / "log").read_text()
    assert mount.log().startswith(log)  # it may have gone on
    assert run("tail", "-n", "1", own / "log").stdout in mount.log().splitlines(keepends=True)

    metrics = parsed((own / "metrics").read_text())
    assert metrics["bentofs_imports_total", ("outcome", "refused")] == 1
    assert metrics["bentofs_read_bytes_total", ("kind", "zip")] == size
    assert metrics["bentofs_log_records_total", ("level", "warning")] == 1
    assert metrics["process_resident_memory_bytes",] > 10 << 20

    for path in (own / "log", own / "new"):
        with pytest.raises(OSError, match=r".") as failed:
            path.write_bytes(b"x")
        assert failed.value.errno == errno.EROFS


def test_a_hostile_name_stays_a_label() -> None:
    """A mountpoint may hold any byte. Each metric stays one line, and keeps its value."""
    status = {
        "version": "1",
        "mountpoint": 'a"b\\c\nd{}\udc80é',
        "store": "\\n",
        "engine": "kernel",
        "since": "2026-01-01T00:00:00.000+00:00",
        "models": None,
        "kernel_nodes": None,
        "reads": {},
        "imports": None,
        "caches": {"bytes": 1, "decoders_bytes": 2, "limit_bytes": 3},
        "index": {"bytes": None, "on_disk": False},
        "process": {"resident_bytes": 1, "threads": 1, "open_files": 1, "cpu_seconds": 0.5},
        "problems": {"warnings": 0, "errors": 0, "last": []},
    }
    families = list(text_string_to_metric_families(as_metrics(status)))
    (info,) = (sample for family in families for sample in family.samples if sample.name == "bentofs_mount_info")
    assert (info.labels["mountpoint"], info.labels["store"]) == ('a"b\\c\nd{}\\udc80é', "\\n")
    names = {family.name for family in families}
    assert not names & {"bentofs_models", "bentofs_index_bytes", "bentofs_imports_running"}, (
        "unknown figures are absent"
    )


def test_no_read_is_lost() -> None:
    """Threads that read one file, and others that open and close files, are all counted."""
    traffic = Traffic()
    traffic.opened(0, "zip")

    def read(number: int) -> None:
        count = traffic.by_handle[0]
        for _ in range(20_000):
            count.reads += 1
            count.bytes += 7
        for handle in range(number * 100 + 1, number * 100 + 51):
            traffic.opened(handle, "tar")
            traffic.by_handle[handle].reads += 1
            traffic.totals()
            traffic.closed(handle)

    in_threads(read, range(4))
    assert traffic.totals() == {"tar": Total(200, 200, 0), "zip": Total(1, 80_000, 560_000)}


def status_of(mount: Mounted) -> dict[str, Any]:
    """Return the status by `cat`, as a shell script would."""
    done = subprocess.run(
        ["cat", mount.path / ".bentofs/status.json"], capture_output=True, timeout=30, check=True
    ).stdout
    told: dict[str, Any] = json.loads(done)
    return told


def until(mount: Mounted, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    return wait_until(lambda: told if holds(told := status_of(mount)) else {}, 10, "the status")


def parsed(text: str) -> dict[tuple[object, ...], float]:
    """Return the samples by their names and labels."""
    return {
        (sample.name, *sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
