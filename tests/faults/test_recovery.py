"""A mount ends between the end of an upload and its import. Its program gets an error. The next mount imports the
upload: to the next program the whole file looks like one that came in."""

import bz2
import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.transfer.receipt import ReceiptState
from tests.harness import Mounted, ended, make_model, run, wait_until
from tests.incoming import area_of, made, record, same, staged, tar_of

Mount = Callable[..., Mounted]


def slow_archive(base: Path, megabytes: int = 12) -> Path:
    """Make an archive of m:v1. Decoding it takes a tenth of a second for each megabyte, after the end of the upload."""
    noise = os.urandom(1 << 20)
    model = made(base, "m:v1", {"w": noise * megabytes})
    tar = tar_of(model, base / "m.tar").read_bytes()
    begin = tar.index(noise)
    parts = [bz2.compress(tar[:begin]), bz2.compress(noise) * megabytes, bz2.compress(tar[begin + (megabytes << 20) :])]
    archive = base / "m-v1.tar.bz2"
    archive.write_bytes(b"".join(parts))
    return archive


def kill(mount: Mounted) -> None:
    mount.process.send_signal(signal.SIGKILL)
    mount.process.wait(20)
    mount.kill()


def end_before_import(mount: Mounted, command: list[str | Path], end: Callable[[Mounted], None] = kill) -> None:
    """End the mount when all is uploaded and nothing imported. The program gets an error."""
    with ended(subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL)) as program:
        wait_until(
            lambda: bool(found := record(mount)) and found[0].state is ReceiptState.IMPORTING,
            30,
            "all is uploaded",
            interval=0.005,
        )
        end(mount)
        assert program.wait(30) != 0
    assert os.listdir(mount.store) == []


def await_decision(mount: Mounted) -> ReceiptState:
    wait_until(lambda: record(mount)[0].state.ended, 30, "it is decided")
    assert staged(area_of(mount.store)) == []
    return record(mount)[0].state


def test_the_next_mount_imports_it(store: Path, mounted: Mount, tmp_path: Path) -> None:
    archive = slow_archive(tmp_path)
    mount = mounted(store)
    end_before_import(mount, ["cp", archive, mount.path / "incoming"])
    mount.start()
    assert await_decision(mount) is ReceiptState.IMPORTED
    assert [receipt.state.value for receipt in record(mount)] == ["imported", "interrupted"]
    assert os.listdir(mount.path / "incoming") == []
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert (mount.path / "incoming" / archive.name).stat().st_size == archive.stat().st_size


def test_a_tool_that_comes_first_decides_it(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """rsync finds the file shorter than its own, sends its end again, and learns the outcome."""
    archive = slow_archive(tmp_path)
    mount = mounted(store)
    end_before_import(mount, ["cp", archive, mount.path / "incoming"])
    mount.start()
    mount.allow_log("was changed while it was checked")  # the mount had begun to decide the file
    run("rsync", "--append-verify", archive, f"{mount.path}/incoming/")
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert os.listdir(mount.path / "incoming") == []


def test_after_an_unmount_too(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """An unmount does not wait for long work, and leaves no note beside the file."""
    archive = slow_archive(tmp_path, megabytes=100)
    mount = mounted(store)
    end_before_import(mount, ["cp", archive, mount.path / "incoming"], Mounted.stop)
    assert record(mount)[0].state is ReceiptState.IMPORTING
    mount.start()
    assert os.listdir(mount.path / "incoming") == [archive.name]
    assert [receipt.state.value for receipt in record(mount)] == ["importing", "interrupted"]


def test_killed_again_and_again(store: Path, mounted: Mount, tmp_path: Path) -> None:
    archive = slow_archive(tmp_path)
    mount = mounted(store)
    end_before_import(mount, ["cp", archive, mount.path / "incoming"])
    for _ in range(3):
        mount.start()
        kill(mount)
        assert os.listdir(store) == []
    mount.start()
    assert await_decision(mount) is ReceiptState.IMPORTED
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_in_a_folder(store: Path, mounted: Mount, tmp_path: Path) -> None:
    archive = slow_archive(tmp_path)
    mount = mounted(store)
    target = mount.path / "incoming/bz2/m"
    target.mkdir(parents=True)
    end_before_import(mount, ["cp", archive, target])
    mount.start()
    assert await_decision(mount) is ReceiptState.IMPORTED
    assert os.listdir(mount.path / "incoming/bz2/m") == []
    same(tmp_path / "made/m/v1", store / "m/v1")


@pytest.mark.parametrize("program", ["cp", "rsync"])
def test_killed_when_the_model_is_in_its_place(store: Path, mounted: Mount, tmp_path: Path, program: str) -> None:
    """Import an upload whose model is in its place already; rsync has renamed it by then.

    The record comes first, so that a crash in between never leaves an import without one; then the file leaves.
    """
    archive = tar_of(made(tmp_path, "m:v1"), tmp_path / "m.tar")
    mount = mounted(store)
    with (area_of(store) / "latest.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with ended(subprocess.Popen([program, archive, mount.path / "incoming"], stderr=subprocess.DEVNULL)) as copier:
            wait_until((store / "m/v1").exists, 20, "the model is in its place")
            kill(mount)
            assert copier.wait(30) != 0
    mount.start()
    assert await_decision(mount) is ReceiptState.UNCHANGED
    wait_until(lambda: os.listdir(mount.path / "incoming") == [], 20, "the file has left incoming/")
    assert (store / "m/latest").read_text() == "v1"


@pytest.mark.parametrize(
    ("options", "advice"), [([], "import with --overwrite"), (["--overwrite"], "copy it again to")]
)
def test_another_model_has_come_meanwhile(
    store: Path, mounted: Mount, tmp_path: Path, options: list[str], advice: str
) -> None:
    """The newer model is not replaced, whatever the mount does with others. The upload is refused, once."""
    archive = slow_archive(tmp_path)
    mount = mounted(store, options=options)
    end_before_import(mount, ["cp", archive, mount.path / "incoming"])
    other = make_model(store, "m:v1", {"w": b"other"})
    mount.expect_log(f"m-v1.tar.bz2 was not imported: m:v1 is in the store with other content.*{advice}", times=1)
    mount.start()
    assert await_decision(mount) is ReceiptState.REFUSED
    assert sorted(os.listdir(mount.path / "incoming")) == [archive.name, f"{archive.name}.error"]
    assert (other / "w").read_bytes() == b"other"
    count = len(record(mount))
    mount.stop()
    mount._expectations.clear()
    mount.start()
    assert len(record(mount)) == count
    if options:  # a user who copies it again wants it replaced
        run("cp", archive, mount.path / "incoming")
        same(tmp_path / "made/m/v1", store / "m/v1")


def test_what_was_not_closed_is_not_imported(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """The upload may have its length but not yet its bytes: without its end a plain tar can look whole."""
    model = made(tmp_path, "m:v1", {"a": b"a" * 1000, "z": b"z" * 1000})
    content = tar_of(model, tmp_path / "m.tar").read_bytes()
    mount = mounted(store)
    file = (mount.path / "incoming/m.tar").open("wb", 0)
    file.truncate(len(content))
    file.write(content[: content.rindex(b"z" * 1000) - 512])
    kill(mount)
    with contextlib.suppress(OSError):  # it is not connected any more
        file.close()
    mount.start()
    assert [receipt.state.value for receipt in record(mount)] == ["interrupted"]
    assert os.listdir(mount.path / "incoming") == ["m.tar"]
    assert os.listdir(store) == []


def test_not_after_the_machine_has_started_anew(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Bytes that were not synced before the restart may be lost."""
    archive = slow_archive(tmp_path)
    mount = mounted(store)
    end_before_import(mount, ["cp", archive, mount.path / "incoming"])
    with sqlite3.connect(area_of(store).joinpath("receipts.sqlite")) as connection:
        connection.execute("UPDATE receipts SET session='01234567' || substr(session, 9)")
    connection.close()
    mount.start()
    assert [receipt.state.value for receipt in record(mount)] == ["interrupted"]
    assert os.listdir(mount.path / "incoming") == [archive.name]
    run("cp", archive, mount.path / "incoming")
    same(tmp_path / "made/m/v1", store / "m/v1")
