"""Uploads that were interrupted: rsync, curl and wget stopped by SIGINT, or the daemon killed. The bytes that had come
are shown in `incoming/` again, and are resumed or removed."""

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness import Mounted, run, wait_until
from tests.interop.uploads import Drop, Outcome, Upload, WebServer, execute

SIZE = 3_000_000  # bytes: two seconds at the speed below
RSYNC_BLOCK = 262_144  # bytes that it writes at a time
ENOUGH = 300_000  # bytes after which an upload is interrupted; rsync writes 256 KiB at a time
SLOWLY = "--bwlimit=1500"
VERY_SLOWLY = "--bwlimit=400"  # so that no upload ends before the last one has begun

# Paths of an interrupted upload's bytes, below incoming/; {} is the file's name.
RSYNC = {
    "--append-verify": (["--append-verify"], "{}"),
    "--partial": (["--partial"], "{}"),
    "--partial-dir": (["--partial-dir=.rsync-partial"], ".rsync-partial/{}"),
    "--inplace": (["--inplace"], "{}"),
    "--delay-updates": (["--delay-updates"], ".~tmp~/{}"),
}
TIMES = {"with times": ["-t"], "without times": []}


def shown(incoming: Path, name: str) -> list[Path]:
    """Return the files of an upload, under any of their temporary names."""
    found = []
    for folder, _, files in os.walk(incoming):
        found += [Path(folder) / file for file in files if name in file and not file.endswith(".error")]
    return found


def has_enough(incoming: Path, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any(path.stat().st_size >= ENOUGH for path in shown(incoming, name))
    return False


@contextlib.contextmanager
def started(command: Sequence[object]) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a program in a process group of its own, like a shell. No process of the group is left at the end."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # Where the tests run in the background, SIGINT is ignored, also by the programs that they start.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def stop(process: "subprocess.Popen[bytes]") -> int:
    """Do what Ctrl-C does, and wait for the whole group. rsync's receiver moves its bytes to their place after the
    started process has ended. Return the exit code of the started process."""
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(30)
    wait_until(lambda: not _is_alive(process.pid), 30, "all of its processes end")
    return code


def _is_alive(group: int) -> bool:
    """True if a process of a group is more than a zombie."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, of_group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                return True
    return False


def interrupt(drop: Drop, upload: Upload, command: Sequence[object]) -> int:
    """Start an upload and interrupt it when enough has come. Return its exit code."""
    drop.mount.allow_log(f"{re.escape(upload.name)} was not imported: ")
    with started(command) as process:
        wait_until(lambda: has_enough(drop.incoming, upload.name), 30, f"{upload.name} is on its way")
        return stop(process)


def check_kept(upload: Upload, path: Path) -> int:
    """Check that the file is the beginning of the upload and not all of it. Return its size in bytes. When interrupted,
    rsync 3.5.0 sometimes writes its last block twice, on any disk."""
    kept, whole = path.read_bytes(), upload.source.read_bytes()
    if kept[-RSYNC_BLOCK:] == kept[-2 * RSYNC_BLOCK : -RSYNC_BLOCK]:
        kept = kept[:-RSYNC_BLOCK]
    assert whole.startswith(kept)
    assert ENOUGH <= len(kept) < len(whole)
    return len(kept)


def resume_by_rsync(drop: Drop, upload: Upload, options: list[str]) -> None:
    """Send the rest. Check that the model is imported and no file is left."""
    stats = run("rsync", "--stats", "--no-W", *options, upload.source, f"{drop.incoming}/").stdout
    found = re.search(r"Literal data: ([\d,]+)", stats)
    assert found, stats
    assert 0 < int(found[1].replace(",", "")) <= upload.source.stat().st_size - ENOUGH, "only the rest was sent"
    drop.check(upload)
    assert shown(drop.incoming, upload.name) == []


# The uploading program is interrupted.


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("name", RSYNC)
def test_rsync_is_interrupted(drop: Drop, name: str, times: str) -> None:
    upload = drop.upload(Outcome.IMPORTED, suffix=".tar.gz", size=SIZE)
    options, place = [*TIMES[times], *RSYNC[name][0]], RSYNC[name][1].format(upload.name)
    assert interrupt(drop, upload, ["rsync", SLOWLY, *options, upload.source, f"{drop.incoming}/"]) == 20
    assert shown(drop.incoming, upload.name) == [drop.incoming / place]
    check_kept(upload, drop.incoming / place)
    assert not drop.in_store(upload.tag).exists()
    resume_by_rsync(drop, upload, options)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_rsync_is_interrupted_with_another_format(drop: Drop, suffix: str) -> None:
    upload = drop.upload(Outcome.IMPORTED, suffix=suffix, size=SIZE)
    command: list[str | Path] = ["rsync", SLOWLY, "-a", "--append-verify", upload.source, f"{drop.incoming}/"]
    assert interrupt(drop, upload, command) == 20
    check_kept(upload, drop.incoming / upload.name)
    resume_by_rsync(drop, upload, ["-a", "--append-verify"])


def test_rsync_is_interrupted_twice(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED, size=SIZE)
    target, sizes = drop.incoming / upload.name, []
    drop.mount.allow_log(f"{re.escape(upload.name)} was not imported: ")
    for least in (ENOUGH, 2 * ENOUGH + 300_000):
        command: list[str | Path] = ["rsync", SLOWLY, "-a", "--append-verify", upload.source, target]
        with started(command) as process:

            def grown(least: int = least) -> bool:
                return target.exists() and target.stat().st_size >= least

            wait_until(grown, 30, "the upload grows")
            assert stop(process) == 20
        sizes.append(check_kept(upload, target))
    assert sizes[0] < sizes[1]
    resume_by_rsync(drop, upload, ["-a", "--append-verify"])


def test_rsync_without_partial_leaves_nothing(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED, size=SIZE)
    command: list[str | Path] = ["rsync", SLOWLY, "-a", upload.source, f"{drop.incoming}/"]
    assert interrupt(drop, upload, command) == 20
    assert shown(drop.incoming, upload.name) == []
    run("rsync", "-a", upload.source, f"{drop.incoming}/")
    drop.check(upload)


def test_resumed_to_something_else_is_refused(drop: Drop) -> None:
    """--append trusts the existing bytes; the daemon still checks them."""
    upload = drop.upload(Outcome.IMPORTED, size=SIZE)
    target = drop.incoming / upload.name
    assert interrupt(drop, upload, ["rsync", SLOWLY, "-a", "--inplace", upload.source, target]) == 20
    with contextlib.suppress(OSError), target.open("r+b", buffering=0) as file:
        file.seek(ENOUGH // 2)
        file.write(b"something else")
    done = execute("rsync", "-a", "--append", upload.source, target)
    assert done.returncode in (11, 23), done
    assert "Bad message" in done.stderr
    assert not drop.in_store(upload.tag).exists()
    # rsync finds the wrong bytes by its checksums, and sends them.
    run("rsync", "-a", "--inplace", "--no-W", "-I", upload.source, target)
    drop.check(upload)


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_download_is_interrupted(drop: Drop, web: WebServer, tool: str) -> None:
    upload = drop.upload(Outcome.IMPORTED, size=SIZE)
    target = drop.incoming / upload.name
    url = web.offer(upload.name, upload.source.read_bytes(), slowly=True)
    command: Sequence[object] = {
        "curl": ["curl", "-sS", "-C", "-", "-o", target, url],
        "wget": ["wget", "-q", "-c", "-O", target, url],
    }[tool]
    assert interrupt(drop, upload, command) != 0
    check_kept(upload, target)
    size = target.stat().st_size
    web.offer(upload.name, upload.source.read_bytes())
    run(*command)
    assert web.ranges[-1] == f"bytes={size}-"
    drop.check(upload)


def test_killed_cp(drop: Drop) -> None:
    """The kernel closes the file of a killed cp: half an archive is no model."""
    upload = drop.upload(Outcome.IMPORTED, size=SIZE)
    target = drop.incoming / upload.name
    script = '(head -c "$1" "$2"; sleep 60) | cp /dev/stdin "$3"'
    drop.mount.allow_log(f"{re.escape(upload.name)} was not imported: ")
    with started(["bash", "-c", script, "bash", str(2 * ENOUGH), upload.source, target]):
        wait_until(lambda: target.exists() and target.stat().st_size == 2 * ENOUGH, 30, "half of it is here")
    assert not drop.in_store(upload.tag).exists()
    wait_until(lambda: target.with_name(f"{target.name}.error").exists(), 10, "its end is seen")
    assert len(target.read_bytes()) == 2 * ENOUGH, "what came stays"
    run("cp", upload.source, target)
    drop.check(upload)


# The daemon is killed.


@dataclass
class Crash:
    """A new mount, after its daemon was killed in the middle of many uploads."""

    drop: Drop
    web: WebServer
    options: list[str]  # common to every rsync
    uploads: dict[str, Upload]
    seen: dict[str, int]  # bytes that were in incoming/ before
    commands: dict[str, list[str | Path]] = field(default_factory=dict)


@pytest.fixture(scope="module", params=TIMES)
def crash(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, web: WebServer) -> Iterator[Crash]:
    base = tmp_path_factory.mktemp("crash")
    (base / "store").mkdir()
    drop = Drop(Mounted(base / "store", base / "mount"), base / "scratch")
    options = TIMES[request.param]
    names = [*RSYNC, "plain rsync", "curl", "wget", "cat", "removed"]
    uploads = {name: drop.upload(Outcome.IMPORTED, suffix=".tar", size=SIZE) for name in names}
    crash = Crash(drop, web, options, uploads, {})
    for name, upload in uploads.items():
        target, url = drop.incoming / upload.name, f"http://127.0.0.1:{web.port}/{upload.name}"
        if name in RSYNC or name == "plain rsync":
            more = RSYNC[name][0] if name in RSYNC else []
            crash.commands[name] = ["rsync", VERY_SLOWLY, *options, *more, upload.source, f"{drop.incoming}/"]
        elif name == "curl":
            crash.commands[name] = ["curl", "-sS", "-C", "-", "-o", target, url]
        elif name == "wget":
            crash.commands[name] = ["wget", "-q", "-c", "-O", target, url]
        else:
            script = '(head -c "$1" "$2"; sleep 60) | cat >"$3"'
            crash.commands[name] = ["bash", "-c", script, "bash", str(2 * ENOUGH), upload.source, target]
    drop.mount.start()
    try:
        _kill_in_the_middle(crash)
        drop.mount.start()
        yield crash
    finally:
        if drop.mount.running:
            drop.mount.stop()


def _kill_in_the_middle(crash: Crash) -> None:
    drop = crash.drop
    for name in ("curl", "wget"):
        crash.web.offer(crash.uploads[name].name, crash.uploads[name].source.read_bytes(), slowly=True)
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(started(command)) for name, command in crash.commands.items()}
        for name, upload in crash.uploads.items():
            wait_until(
                functools.partial(has_enough, drop.incoming, upload.name), 30, f"{name} has begun", interval=0.01
            )
        for name, upload in crash.uploads.items():
            (path,) = shown(drop.incoming, upload.name)
            crash.seen[name] = path.stat().st_size
        drop.mount.kill()
        for name, process in running.items():
            if name in ("cat", "removed"):
                os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(30) != 0, f"{name} must not believe that all is well"


@pytest.mark.parametrize("name", [*RSYNC, "plain rsync", "curl", "wget", "cat", "removed"])
def test_daemon_is_killed(crash: Crash, name: str) -> None:
    drop, upload = crash.drop, crash.uploads[name]
    (path,) = shown(drop.incoming, upload.name)
    assert check_kept(upload, path) >= crash.seen[name]
    assert not drop.in_store(upload.tag).exists()
    if name in ("--append-verify", "--inplace", "curl", "wget", "cat", "removed"):
        assert path == drop.incoming / upload.name
    last = drop.receipts(upload.name)[-1]
    assert last.state.value == "interrupted"
    if name == "removed":
        run("rm", path)
        assert shown(drop.incoming, upload.name) == []
        return
    if name in ("curl", "wget"):
        crash.web.offer(upload.name, upload.source.read_bytes())
        run(*crash.commands[name])
        assert re.fullmatch(r"bytes=[1-9]\d+-", crash.web.ranges[-1])
    elif name == "cat":
        run("cp", upload.source, path)
    elif name in ("--append-verify", "--inplace"):
        resume_by_rsync(drop, upload, [*crash.options, *RSYNC[name][0]])
    else:
        # rsync could not rename its temporary file. It stands under the temporary name, and is useful only by hand.
        assert re.fullmatch(rf"\.{re.escape(upload.name)}\.\w{{6}}", path.name)
        if name == "--partial":
            run("mv", path, drop.incoming / f"{upload.name}.part")
            run("rsync", *crash.options, "--inplace", "--no-W", upload.source, drop.incoming / f"{upload.name}.part")
            run("mv", drop.incoming / f"{upload.name}.part", drop.incoming / upload.name)
        else:
            run("rsync", *crash.options, *RSYNC.get(name, ([], ""))[0], upload.source, f"{drop.incoming}/")
            run("rm", path)
    drop.check(upload)
    assert shown(drop.incoming, upload.name) == []


def test_killed_with_partial_files_in_place(mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """The files that --partial-dir and --delay-updates keep after an interruption survive the daemon's death too."""
    (tmp_path / "store").mkdir()
    drop = Drop(mounted(tmp_path / "store"), tmp_path / "scratch")
    uploads = {}
    for name in ("--partial-dir", "--delay-updates", "--partial"):
        upload = uploads[name] = drop.upload(Outcome.IMPORTED, suffix=".tar", size=SIZE)
        command = ["rsync", SLOWLY, "-t", *RSYNC[name][0], upload.source, f"{drop.incoming}/"]
        assert interrupt(drop, upload, command) == 20
    drop.mount.kill()
    drop.mount.start()
    for name, upload in uploads.items():
        path = drop.incoming / RSYNC[name][1].format(upload.name)
        assert shown(drop.incoming, upload.name) == [path]
        check_kept(upload, path)
        resume_by_rsync(drop, upload, ["-t", *RSYNC[name][0]])


def test_times_and_notes_survive(mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """A kill changes neither the attributes of a spooled file, nor the reason of its refusal, nor the answer for an
    import."""
    (tmp_path / "store").mkdir()
    drop = Drop(mounted(tmp_path / "store"), tmp_path / "scratch")
    bad, good = drop.upload(Outcome.TRUNCATED), drop.upload(Outcome.IMPORTED)
    for upload in (bad, good):
        os.utime(upload.source, ns=(1, 1_500_000_000_987_654_321))
        assert execute("cp", "-p", upload.source, drop.incoming).returncode == (1 if upload is bad else 0)
    shutil.copy2(good.source, drop.incoming / "unfinished.zip.part")
    drop.mount.allow_log(f"{bad.name} was not imported")  # each start has a log of its own
    for end in (drop.mount.kill, drop.mount.stop):
        end()
        drop.mount.start()
        assert sorted(os.listdir(drop.incoming)) == sorted([bad.name, f"{bad.name}.error", "unfinished.zip.part"])
        assert (drop.incoming / bad.name).read_bytes() == bad.source.read_bytes()
        assert (drop.incoming / bad.name).stat().st_mtime_ns == 0, "older than any source"
        assert (drop.incoming / "unfinished.zip.part").stat().st_mtime_ns == 1_500_000_000_987_654_321
        assert (drop.incoming / good.name).stat().st_mtime_ns == 1_500_000_000_987_654_321
        assert (drop.incoming / good.name).stat().st_size == good.source.stat().st_size
        assert "was not imported: " in (drop.incoming / f"{bad.name}.error").read_text()
    run("mv", drop.incoming / "unfinished.zip.part", drop.incoming / "finished.zip")
    assert [receipt["state"] for receipt in drop.imports("finished.zip")] == ["unchanged"]
