"""Empty uploads. The program that wrote one gets no error: before its close, nothing shows that no bytes will come. The
note, the record and the log tell it."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.transfer.receipt import ReceiptState
from tests.harness import Mounted, run, wait_until
from tests.incoming import made, made_tar, record, same, tar_of
from tests.interop.uploads import execute

Mount = Callable[..., Mounted]

_WHY = "the file is empty: no model came; copy it again"


def is_told(mount: Mounted, name: str) -> None:
    """Wait until the note and the record tell it. The kernel does not wait for an answer to the close."""
    note = mount.path / "incoming" / f"{name}.error"
    wait_until(lambda: note.exists() and note.stat().st_size, 10, "the note is there")
    assert re.fullmatch(rf"{re.escape(name)} was not imported: {_WHY} \(request \w+-\d+\)\n", note.read_text())
    wait_until(lambda: record(mount)[0].state is ReceiptState.REFUSED, 10, "it is in the record")
    last = record(mount)[0]
    assert (last.path, last.errno, last.error, last.size) == (name, "EINVAL", _WHY, 0)


def test_empty_files(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    incoming = mount.path / "incoming"
    (tmp_path / "empty").touch()
    os.utime(tmp_path / "empty", (1, 1))
    commands: dict[str, list[str | Path]] = {
        "cp.zip": ["cp", tmp_path / "empty", incoming / "cp.zip"],
        "cp -p.zip": ["cp", "-p", tmp_path / "empty", incoming / "cp -p.zip"],
        "shell.zip": ["bash", "-c", 'cat "$0" >"$1"', tmp_path / "empty", incoming / "shell.zip"],
        "dd.zip": ["dd", "status=none", f"if={tmp_path / 'empty'}", f"of={incoming / 'dd.zip'}"],
    }
    for name, command in commands.items():
        mount.expect_log(f"{re.escape(name)} was not imported: {_WHY}", times=1)
        run(*command)
        is_told(mount, name)
    mount.expect_log("rsync.zip was not imported: the file is empty", times=1)
    assert execute("rsync", tmp_path / "empty", incoming / "rsync.zip").returncode == 23
    count = len(record(mount))
    run("cat", *(incoming / name for name in commands))
    run("touch", incoming / "touched.zip")  # a deliberate touch is not an upload
    (incoming / "folder").mkdir()
    for name in ("empty.part", "SHA256SUMS", "folder/empty.zip"):
        run("cp", tmp_path / "empty", incoming / name)
    for name in commands:
        (incoming / name).unlink()
    for name in os.listdir(incoming):
        assert not name.startswith(tuple(commands))
    assert len(record(mount)) == count


def test_bytes_that_come_after_all(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A program may create a file, close it, and open it again to write it."""
    mount = mounted(store)
    mount.expect_log(_WHY, times=1)
    (mount.path / "incoming/m.tar").write_bytes(b"")
    is_told(mount, "m.tar")
    archive = made_tar(tmp_path, "m:v1")
    with archive.open("rb") as source, (mount.path / "incoming/m.tar").open("r+b") as target:
        target.write(source.read())
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert os.listdir(mount.path / "incoming") == []
    assert [receipt.state for receipt in record(mount)] == [ReceiptState.IMPORTED, ReceiptState.REFUSED]


@pytest.mark.parametrize("command", ['sleep 0.3; cat "$0"', 'dd if="$0" bs=777 status=none', '(cat "$0")'])
def test_what_closes_before_its_first_byte(store: Path, mounted: Mount, tmp_path: Path, command: str) -> None:
    mount = mounted(store)
    archive = tar_of(made(tmp_path, "m:v1"), tmp_path / "m.tar")
    target = mount.path / "incoming/m.tar"
    subprocess.run(["bash", "-c", f'{{ {command}; }} >"$1"', archive, target], check=True, timeout=60)
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert [receipt.state for receipt in record(mount)] == [ReceiptState.IMPORTED]
