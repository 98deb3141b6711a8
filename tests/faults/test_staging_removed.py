"""Somebody removes the staging folder, which is hidden and looks abandoned, under a mount. It is made again."""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.transfer.receipt import ReceiptState
from tests.harness import Mounted, run, wait_until
from tests.incoming import area_of, imports, made, made_tar, record, same, send, staged

Mount = Callable[..., Mounted]

_AGAIN = "bentofs was removed and is made again: uploads in it are lost"


@pytest.mark.parametrize("what", ["", "sessions", "sessions/*", "sessions/*/spool", "sessions/*/staged"])
def test_made_again(store: Path, mounted: Mount, tmp_path: Path, what: str) -> None:
    mount = mounted(store)
    incoming = mount.path / "incoming"
    before = made_tar(tmp_path, "before:v1")
    run("cp", before, incoming)
    mount.expect_log(_AGAIN, times=1)
    for path in area_of(store).glob(what) if what else [area_of(store)]:
        _remove(path, tmp_path)
    if "staged" in what:
        mount.wait_for_log(_AGAIN)
    assert os.listdir(incoming) == []
    for form in ("tar", "folder"):
        send(made(tmp_path, f"after-{form}:v1"), form, mount, tmp_path)
        same(tmp_path / f"made/after-{form}/v1", store / f"after-{form}/v1")
    # The record is whole again too.
    assert [receipt["tag"] for receipt in imports(mount)] == ["before:v1", "after-tar:v1", "after-folder:v1"]
    assert (incoming / before.name).stat().st_size == before.stat().st_size
    for path in (area_of(store), *area_of(store).glob("sessions/*"), *area_of(store).glob("sessions/*/*/")):
        look = path.stat()
        assert (stat.S_IMODE(look.st_mode), look.st_uid) == (0o700, os.geteuid())
    assert staged(area_of(store)) == []
    mount.stop()
    assert list(area_of(store).glob("sessions/*")) == []


def test_removed_under_an_upload(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """The upload's program gets an error, or its model is in the store."""
    mount = mounted(store)
    mount.expect_log(_AGAIN, times=1)
    mount.allow_log("m-v1.tar was not imported")
    mount.allow_log("cannot be written: No such file or directory")
    archive = made_tar(tmp_path, "m:v1", {"w": os.urandom(3 << 20)})
    content = archive.read_bytes()
    descriptor = os.open(mount.path / "incoming/m-v1.tar", os.O_WRONLY | os.O_CREAT)
    told = 0
    with contextlib.suppress(OSError):
        os.write(descriptor, content[: 1 << 20])
        _remove(area_of(store), tmp_path)
        mount.wait_for_log(_AGAIN)
        os.write(descriptor, content[1 << 20 :])
    try:
        os.close(descriptor)
    except OSError as error:
        told = error.errno or -1
    assert (told == 0) == (store / "m/v1").exists()
    run("cp", archive, mount.path / "incoming")
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_two_mounts_on_one_store(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mounts = [mounted(store), mounted(store)]
    _remove(area_of(store), tmp_path)
    for number, mount in enumerate(mounts):
        mount.expect_log(_AGAIN, times=1)
        run("cp", made_tar(tmp_path, f"m{number}:v1"), mount.path / "incoming")
    assert len(list(area_of(store).glob("sessions/*"))) == 2
    assert [receipt.state for receipt in record(mounts[0])] == [ReceiptState.IMPORTED] * 2


def test_a_file_in_its_place(store: Path, mounted: Mount, tmp_path: Path) -> None:
    """Nothing is written through a foreign file in its place. The error is logged once, and all works when the file is
    gone."""
    mount = mounted(store)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    _remove(area_of(store), tmp_path)
    area_of(store).symlink_to(elsewhere)
    mount.expect_log("bentofs was removed and cannot be made again: ", times=1)
    mount.wait_for_log("cannot be made again", 10)
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        os.listdir(mount.path / "incoming")
    assert list(elsewhere.iterdir()) == []
    area_of(store).unlink()
    mount.expect_log(_AGAIN, times=1)
    wait_until(lambda: (mount.path / "incoming").exists(), 10, "incoming/ is there again")
    run("cp", made_tar(tmp_path, "m:v1"), mount.path / "incoming")
    same(tmp_path / "made/m/v1", store / "m/v1")


def _remove(folder: Path, tmp_path: Path) -> None:
    """Remove a directory in which a mount may make files meanwhile. It is gone at once for those who look."""
    aside = tmp_path / "removed"
    folder.rename(aside)

    def is_gone() -> bool:
        with contextlib.suppress(OSError):  # not empty, since the mount has just made a file
            shutil.rmtree(aside)
        return not aside.exists()

    wait_until(is_gone, 10, f"{folder} is gone", interval=0)
