"""A refused archive that is sent again: no tool takes the file in incoming/ for up to date. Each run fails like the
first, or imports it once the reason is gone. The tests use the real tools, with each tool's way to compare files."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.harness import ROOT, Mounted, remove_model, run, wait_until
from tests.interop.uploads import Drop, Outcome, Upload, WebServer, execute, shell

RCLONE = ROOT / ".venv" / "bin" / "rclone"


@dataclass(frozen=True)
class Bench:
    """The folders of the tools: each has one with the file that it sends."""

    drop: Drop
    web: WebServer

    def rsync(self, upload: Upload, *options: str) -> "CompletedProcess[str]":
        return execute("rsync", *options, f"{upload.source.parent}/", f"{self.drop.incoming}/")

    def cp(self, upload: Upload, *options: str) -> "CompletedProcess[str]":
        return execute("cp", *options, upload.source, self.drop.incoming)

    def curl(self, upload: Upload) -> "CompletedProcess[str]":
        url = self.web.offer(upload.name, upload.source.read_bytes())
        return execute("curl", "-sS", "-C", "-", "-o", self.drop.incoming / upload.name, url)

    def rclone(self, upload: Upload, *options: str) -> "CompletedProcess[str]":
        once = ["--config", "/dev/null", "--retries", "1", "--low-level-retries", "1"]
        return execute(RCLONE, "copy", *once, *options, upload.source.parent, self.drop.incoming)


@pytest.fixture(scope="module")
def bench(drop: Drop, web: WebServer) -> Bench:
    return Bench(drop, web)


STREAMS = ["--multi-thread-streams", "4", "--multi-thread-cutoff", "64k"]
TOOLS: dict[str, Callable[[Bench, Upload], "CompletedProcess[str]"]] = {
    "rsync -a": lambda bench, upload: bench.rsync(upload, "-a"),
    "rsync --delay-updates": lambda bench, upload: bench.rsync(upload, "-a", "--delay-updates"),
    "rsync --partial": lambda bench, upload: bench.rsync(upload, "-a", "--partial"),
    "rsync --inplace": lambda bench, upload: bench.rsync(upload, "-a", "--inplace"),
    "rsync --append-verify": lambda bench, upload: bench.rsync(upload, "-a", "--append-verify"),
    "rsync --append": lambda bench, upload: bench.rsync(upload, "-a", "--append"),
    "rsync --size-only": lambda bench, upload: bench.rsync(upload, "-r", "--size-only"),
    "rsync --update": lambda bench, upload: bench.rsync(upload, "-a", "--update"),
    "cp -u": lambda bench, upload: bench.cp(upload, "-u"),
    "cp -pu": lambda bench, upload: bench.cp(upload, "-pu"),
    "curl -C -": Bench.curl,
    "rclone": Bench.rclone,
    "rclone --inplace": lambda bench, upload: bench.rclone(upload, "--inplace"),
    "rclone --size-only": lambda bench, upload: bench.rclone(upload, "--inplace", "--size-only"),
    "rclone --update": lambda bench, upload: bench.rclone(upload, "--inplace", "--update"),
    "rclone streams": lambda bench, upload: bench.rclone(upload, "--inplace", *STREAMS),
}
STALE_SECONDS = 1.1  # the kernel believes for so long the attributes it got before the file was closed


@pytest.mark.parametrize("outcome", [Outcome.TAKEN, Outcome.TRUNCATED])
@pytest.mark.parametrize("name", TOOLS)
def test_every_run_fails_until_the_reason_is_gone(bench: Bench, name: str, outcome: Outcome) -> None:
    drop = bench.drop
    upload = drop.upload(Outcome.IMPORTED, suffix=".tar")
    os.utime(upload.source, ns=(1, 1_600_000_000_123_456_789))
    whole = shutil.copy2(upload.source, drop.folder())
    if outcome is Outcome.TAKEN:
        drop.take(upload.tag)
    else:
        os.truncate(upload.source, upload.source.stat().st_size * 2 // 3)
        shutil.copystat(whole, upload.source)
    drop.expect_refusal(upload)
    for _ in range(3):
        done = TOOLS[name](bench, upload)
        assert done.returncode != 0, f"nothing was sent, and no model is there: {done}"
        time.sleep(STALE_SECONDS)
    if outcome is Outcome.TAKEN:
        remove_model(drop.store, upload.tag)
        wait_until(lambda: not drop.mount.shows(upload.tag), 10, "the mount sees that it is gone")
    else:
        shutil.copy2(whole, upload.source)
    done = TOOLS[name](bench, upload)
    assert done.returncode == 0, done
    drop.check_imported(upload.tag, upload.model)
    assert not {upload.name, f"{upload.name}.error"} & set(os.listdir(drop.incoming))


def test_a_refused_file_is_shown_shorter_and_old_and_gives_all_its_bytes(
    mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    drop = Drop(mounted(tmp_path / "store"), tmp_path / "scratch")
    upload = drop.upload(Outcome.TAKEN)
    drop.mount.allow_log(f"{upload.name} was not imported: ")  # each start has a log of its own
    target, size = drop.incoming / upload.name, upload.source.stat().st_size
    assert execute("cp", "-p", upload.source, target).returncode == 1
    wait_until(lambda: target.stat().st_size < size, 3, "it is shown shorter")
    assert target.stat().st_mtime_ns == 0
    back = drop.folder() / "back"
    run("cp", target, back)
    assert back.read_bytes() == upload.source.read_bytes()
    drop.mount.stop()
    drop.mount.start()
    assert (target.stat().st_size, target.stat().st_mtime_ns) == (size - 512, 0), "after a remount, too"
    run("chmod", "755", target)
    run("touch", target)
    assert (target.stat().st_size, target.stat().st_mtime_ns) == (size - 512, 0)
    remove_model(drop.store, upload.tag)
    wait_until(lambda: not drop.mount.shows(upload.tag), 10, "the mount sees that it is gone")
    run("mv", target, drop.incoming / f"other-{upload.name}")
    drop.check_imported(upload.tag, upload.model)


def test_source_times_that_lie_at_the_epoch_or_before(drop: Drop) -> None:
    """Nix and OSTree give all of their files such times."""
    for seconds in (1, 0, -5):
        upload = drop.upload(Outcome.TAKEN)
        drop.expect_refusal(upload)
        os.utime(upload.source, (seconds, seconds))
        for command in (["rsync", "-a"], ["cp", "-pu"]):
            assert execute(*command, upload.source, drop.incoming).returncode != 0


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_parts_are_appended_blindly(drop: Drop, suffix: str) -> None:
    """`cat part >> file` appends behind the last byte, without looking at the size that is shown."""
    upload = drop.upload(Outcome.IMPORTED, suffix=suffix)
    drop.expect_refusal(upload)
    parts = drop.folder()
    run("split", "-n", "4", upload.source, f"{parts}/part.")
    target = drop.incoming / upload.name
    codes = []
    for part in sorted(parts.iterdir()):
        codes.append(shell('cat "$1" >> "$2"', part, target).returncode)
        time.sleep(STALE_SECONDS)
    assert codes == [1, 1, 1, 0], "cat says that what is there so far is no archive"
    drop.check_imported(upload.tag, upload.model)


def test_checksums_that_do_not_fit_are_refused_each_time(drop: Drop) -> None:
    upload = drop.upload(Outcome.IMPORTED)
    note = upload.source.with_name(f"{upload.name}.sha256")
    note.write_text(f"{'0' * 64}  {upload.name}\n")
    run("cp", upload.source, drop.incoming)
    drop.mount.expect_log(rf"{note.name} was not imported: ")
    for _ in range(2):
        assert execute("rsync", "-a", note, f"{drop.incoming}/").returncode != 0
    run("rm", drop.incoming / note.name)


def test_a_zip_that_is_no_model_stays_as_it_came(drop: Drop) -> None:
    """In a folder a zip that is no model is no mistake: nothing is sent twice."""
    source = drop.folder()
    (source / "below").mkdir()
    (source / "data").write_text("data")
    run("zip", "-q", source / "below/data.zip", "data", cwd=source)
    stats = ["rsync", "-a", "--stats", "--out-format=%n", f"{source}/below", f"{drop.incoming}/"]
    assert "data.zip" in run(*stats).stdout
    assert "data.zip" not in run(*stats).stdout
    assert (drop.incoming / "below/data.zip").stat().st_size == (source / "below/data.zip").stat().st_size
