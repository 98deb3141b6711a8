"""Directories in `incoming/`: models, and archives in them."""

import errno
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness import make_model, run, wait_until
from tests.incoming import (
    imports,
    made,
    same,
)
from tests.mount.incoming.putting import Mount, in_incoming, nothing_is_staged


def test_folder_is_imported_at_sync(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"w": os.urandom(200_000), "d/e": b"e", "empty/": b""})
    run("cp", "-r", model, mount.path / "incoming/any name")
    time.sleep(1.5)  # let a look of the daemon pass: without --settle it imports nothing by itself
    assert not (store / "m").exists()
    assert in_incoming(mount) == ["any name"]
    run("sync", mount.path / "incoming/any name")
    same(model, store / "m/v1")
    assert in_incoming(mount) == []
    assert imports(mount)[-1]["tag"] == "m:v1"
    nothing_is_staged(mount)
    assert mount.shows("m:v1")


@pytest.mark.parametrize(
    ("text", "number"),
    [("name: [", errno.EINVAL), ("name: Bad Name\nversion: v1\n", errno.EINVAL), (None, 0)],
    ids=["malformed", "bad tag", "none"],
)
def test_folder_that_is_no_model(store: Path, mounted: Mount, tmp_path: Path, text: str | None, number: int) -> None:
    """sync gets the errno, and the directory stays. A directory without model.yaml is simply not a model."""
    mount = mounted(store)
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    (folder / "d/w").write_bytes(b"w")
    if text is not None:
        (folder / "model.yaml").write_text(text)
        mount.expect_log("folder was not imported")
    run("cp", "-r", folder, mount.path / "incoming")
    done = subprocess.run(
        ["sync", mount.path / "incoming/folder"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (os.strerror(number) in done.stderr) if number else done.returncode == 0, done.stderr
    same(folder, mount.path / "incoming/folder")
    assert os.listdir(store) == []
    if number:
        assert in_incoming(mount) == ["folder", "folder.error"]
    nothing_is_staged(mount)


def test_folder_of_a_taken_tag(store: Path, mounted: Mount, tmp_path: Path) -> None:
    make_model(store, "m:v1", {"w": b"old"})
    mount = mounted(store)
    mount.expect_log("folder was not imported: m:v1 is in the store")
    run("cp", "-r", made(tmp_path, "m:v1", {"w": b"new"}), mount.path / "incoming/folder")
    done = subprocess.run(
        ["sync", mount.path / "incoming/folder"], capture_output=True, text=True, timeout=30, check=False
    )
    assert "File exists" in done.stderr
    assert (store / "m/v1/w").read_bytes() == b"old"
    assert (mount.path / "incoming/folder/w").read_bytes() == b"new"
    run("rm", "-r", mount.path / "incoming/folder")
    assert in_incoming(mount) == ["folder.error"]


def test_several_folders_at_one_sync(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """`sync incoming/all`, and the layout of by-format/folder with its `latest` files."""
    mount = mounted(store)
    for tag in ("a:v1", "a:v2", "b:v1"):
        made(tmp_path, tag)
    run("cp", "-r", tmp_path / "made", mount.path / "incoming/all")
    run("sync", mount.path / "incoming/all")
    for tag in ("a/v1", "a/v2", "b/v1"):
        same(tmp_path / "made" / tag, store / tag)
    assert (store / "a/latest").read_text() == "v2"


def test_settle(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A directory is imported after its quiet time. Not while a file is open, and not without model.yaml."""
    mount = mounted(store, options=["--settle", "1.5"])
    model = made(tmp_path, "m:v1", {"w": b"w" * 100_000, "d/e": b"e"})
    run("cp", "-r", made(tmp_path, "busy:v1"), mount.path / "incoming/busy")
    (mount.path / "incoming/unnamed").mkdir()
    shutil.copy(model / "w", mount.path / "incoming/unnamed/w")
    with open(mount.path / "incoming/busy/open", "wb", 0) as file:
        file.write(b"open")
        run("cp", "-r", model, mount.path / "incoming/m")
        begun = time.monotonic()
        assert not (store / "m").exists()
        wait_until((store / "m/v1").exists, 20, "the quiet folder is imported")
        assert time.monotonic() - begun > 1.0
        time.sleep(1.5)  # let another look of the daemon pass: the others came earlier, and must stay
        assert sorted(os.listdir(store)) == ["m"]
        assert in_incoming(mount) == ["busy", "unnamed"]
        file.write(b" and closed")
    same(model, store / "m/v1")
    wait_until((store / "busy/v1/open").exists, 20, "the other one is imported when it is closed")
    shutil.copy(made(tmp_path, "unnamed:v1") / "model.yaml", mount.path / "incoming/unnamed")
    wait_until((store / "unnamed/v1/w").exists, 20, "and the third with its model.yaml")
    assert in_incoming(mount) == []


def test_settle_is_off_by_default_and_waits_for_what_still_comes(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store, options=["--settle", "2"])
    (mount.path / "incoming/m").mkdir()
    shutil.copy(made(tmp_path, "m:v1") / "model.yaml", mount.path / "incoming/m")
    for number in range(6):  # never two quiet seconds
        (mount.path / f"incoming/m/{number}").write_bytes(b"more")
        time.sleep(0.7)  # a slow copy
        assert not (store / "m").exists()
    wait_until((store / "m/v1/5").exists, 20, "it is imported")
    assert len(os.listdir(store / "m/v1")) == 7


def test_settle_leaves_a_folder_on_its_way_alone(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A directory with a temporary name is left alone, however long its copy stalls. It is imported under its final
    name."""
    mount = mounted(store, options=["--settle", "1"])
    run("cp", "-r", made(tmp_path, "m:v1"), mount.path / "incoming/m.part")
    time.sleep(2.5)  # let the quiet time and a look of the daemon pass: it must not be imported
    assert os.listdir(store) == []
    (mount.path / "incoming/m.part/more").write_bytes(b"more")
    run("mv", mount.path / "incoming/m.part", mount.path / "incoming/m")
    wait_until((store / "m/v1/more").exists, 10, "it is imported")
    assert in_incoming(mount) == []


def test_settle_refuses_a_folder_once(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """A directory is refused once. It is not read again every few seconds; only after a change in it."""
    make_model(store, "m:v1", {"w": b"old"})
    mount = mounted(store, options=["--settle", "1"])
    mount.expect_log("m was not imported: m:v1 is in the store", times=2)
    run("cp", "-r", made(tmp_path, "m:v1", {"w": b"new"}), mount.path / "incoming/m")
    wait_until(lambda: imports(mount), 10, "it is refused")
    time.sleep(2.5)  # let the quiet time and a look of the daemon pass: it must not be read again
    assert len(imports(mount)) == 1
    (mount.path / "incoming/m/more").write_bytes(b"more")
    wait_until(lambda: len(imports(mount)) == 2, 10, "it is looked at again")
    time.sleep(2.5)  # the same again
    assert len(imports(mount)) == 2
