"""An import is on disk before its program learns of it."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.surviving import clean_area
from tests.harness import Mounted, ended, run
from tests.incoming import area_of, imports, made, made_tar, same, send, spooled
from tests.waiting import wait_until_settled


def traced(mount: Mounted, base: Path, work: Callable[[], object]) -> list[tuple[float, str, str]]:
    """Trace the daemon while the work is done: time, system call, arguments. Descriptors are shown as paths."""
    log = base / "strace"
    calls = (
        "fsync,fdatasync,syncfs,sync_file_range,rename,renameat,renameat2,mkdir,mkdirat,openat,pwrite64,copy_file_range"
    )
    command = ["strace", "-f", "-y", "-ttt", "-s", "300", "-e", f"trace={calls}", "-o", str(log), "-p", str(mount.pid)]
    with ended(subprocess.Popen(command, stderr=subprocess.PIPE)) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        work()
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
    calls_of: dict[str, str] = {}
    found = []
    for line in log.read_text(errors="replace").splitlines():
        thread, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            calls_of[thread] = rest.removesuffix("<unfinished ...>").partition(" ")[2]
            continue
        resumed = re.match(r"(\d+\.\d+) <\.\.\. \w+ resumed>(.*)", rest)
        if resumed:
            rest = f"{resumed[1]} {calls_of.pop(thread, '')}{resumed[2]}"
        match = re.match(r"(\d+\.\d+) (\w+)\((.*)", rest)
        if match and not re.search(r"= -1 E", match[3]):
            found.append((float(match[1]), match[2], match[3]))
    return found


@pytest.mark.parametrize("count", [12, 450], ids=["few files", "many files"])
@pytest.mark.parametrize("form", ["tar", "zip", "folder"])
def test_durable_before_it_is_acknowledged(
    store: Path, mounted: Callable[..., Mounted], tmp_path: Path, form: str, count: int
) -> None:
    mount = mounted(store, own_process=True)
    files: dict[str | bytes, bytes | int] = {f"d{number % 5}/{number}": os.urandom(3000) for number in range(count)}
    model = made(tmp_path, "m:v1", {**files, "large": os.urandom(5_000_000), "deep/er/empty/": b""})
    ended_at: list[float] = []

    def work() -> None:
        send(model, form, mount, tmp_path)
        ended_at.append(time.time())
        time.sleep(0.5)  # record also what the daemon does too late

    calls = traced(mount, tmp_path, work)
    same(model, store / "m/v1")
    placed = [
        index
        for index, (_, call, text) in enumerate(calls)
        if call.startswith("rename") and f"{store}/m>" in text and '"v1"' in text
    ]
    assert len(placed) == 1, "one rename puts it there"
    place = placed[0]
    origin = re.match(r'[^"]*"([^"]*)"', calls[place][2])
    assert origin, calls[place]
    root = origin[1]
    # Calls are ordered by their end: these syncs had ended before the rename began.
    synced = {
        path
        for _, call, text in calls[:place]
        if call in ("fsync", "fdatasync")
        for path in re.findall(r"<([^<>]*)>", text)[:1]
    }
    whole = any(call == "syncfs" for _, call, _ in calls[:place])
    last_write = (
        max(
            index
            for index, (_, call, text) in enumerate(calls)
            if call in ("pwrite64", "copy_file_range") and root in text
        )
        if form != "folder"
        else -1
    )
    assert last_write < place
    if whole:
        last_sync = max(index for index, (_, call, _) in enumerate(calls[:place]) if call == "syncfs")
        assert last_write < last_sync
    missing = [
        str(path.relative_to(model))
        for path in [model, *model.rglob("*")]
        if not whole and str(Path(root) / path.relative_to(model)) not in synced
    ]
    assert not missing, f"not synced before the rename: {missing[:5]} of {len(missing)}"
    assert count > 200 or not whole, "a syncfs waits for what others write, too"
    after = [(when, call, re.findall(r"<([^<>]*)>", text)) for when, call, text in calls[place + 1 :]]
    for folder in (store / "m", store):
        times = [when for when, call, paths in after if call == "fsync" and paths[:1] == [str(folder)]]
        assert times, f"{folder} is not synced after the rename"
        assert min(times) < ended_at[0]
    # `latest` is made the same way.
    latest = [index for index, (_, call, text) in enumerate(calls) if call.startswith("rename") and '"latest"' in text]
    assert len(latest) == 1
    assert place < latest[0]
    assert calls[latest[0]][0] < ended_at[0]
    assert any(call == "fsync" and f"<{store}/m>" in text for _, call, text in calls[latest[0] :])


def test_unchanged_is_durable_too(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """BentoML does not sync the models that it saves, but users rely on a success that an import reports."""
    archive = made_tar(tmp_path, "m:v1", {"w": os.urandom(100_000), "d/e": b"e"})
    run("cp", "-rT", tmp_path / "made", store)
    mount = mounted(store, own_process=True)
    wait_until_settled(store)
    os.utime(store / "m/v1", (1, 1))
    calls = traced(mount, tmp_path, lambda: run("cp", archive, mount.path / "incoming"))
    assert imports(mount)[-1]["state"] == "unchanged"
    synced = {path for _, call, text in calls if call == "fsync" for path in re.findall(r"<([^<>]*)>", text)[:1]}
    for path in (store / "m/v1/w", store / "m/v1/d/e", store / "m/v1/model.yaml", store / "m/v1", store / "m", store):
        assert str(path) in synced


def test_power_is_lost_for_the_spool(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """A spooled upload that lost its tail is not taken for a whole one: it is cut short, or has holes of zeros."""
    mount = mounted(store, own_process=True)
    mount.allow_log("was not imported")
    archive = made_tar(tmp_path, "m:v1", {"w": os.urandom(1_000_000)})
    content = archive.read_bytes()
    with (mount.path / "incoming/m.tar.part").open("wb") as file:
        file.write(content)
    mount.process.send_signal(signal.SIGKILL)
    mount.process.wait(20)
    mount.kill()
    (lies,) = spooled(area_of(store))
    os.truncate(lies, 700_000)
    mount.start()
    clean_area(mount)
    with pytest.raises(OSError, match="Bad message"):
        (mount.path / "incoming/m.tar.part").rename(mount.path / "incoming/m.tar")
    assert os.listdir(store) == []
    run("cp", archive, mount.path / "incoming/m.tar")
    same(tmp_path / "made/m/v1", store / "m/v1")
