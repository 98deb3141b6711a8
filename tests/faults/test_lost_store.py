"""A store, or its record of imports, that is lost or becomes read-only under `incoming/`."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Mounted, make_model, run, wait_until
from tests.incoming import area_of, cp, imports, made_tar, same, staged
from tests.store.staged import contents


def test_store_vanishes_and_comes_back(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    make_model(store, "old:v1", {"w": b"old"})
    mount = mounted(store)
    mount.allow_log("cannot be read|was not imported|No such file")
    content = made_tar(tmp_path, "m:v1", {"w": os.urandom(1_000_000)}).read_bytes()
    aside = store.with_name("aside")
    descriptor = os.open(mount.path / "incoming/m.tar", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, content[:500_000])
    store.rename(aside)
    assert os.pwrite(descriptor, content[500_000:], 500_000) == len(content) - 500_000
    with pytest.raises(OSError, match=r"Input/output|Stale|No such") as raised:
        os.close(descriptor)
    assert raised.value.errno in (errno.EIO, errno.ESTALE, errno.ENOENT)
    assert not store.exists()
    aside.rename(store)
    wait_until(lambda: mount.shows("old:v1"), 10, "the store is there again")
    run("cp", tmp_path / "m-v1.tar", mount.path / "incoming")
    same(tmp_path / "made/m/v1", store / "m/v1")
    contents(store)


def test_store_that_may_not_be_written_any_more(
    small_disk: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """A disk with errors is mounted read-only again."""
    store = small_disk / "bentoml" / "models"
    make_model(store, "old:v1", {"w": b"old"})
    mount = mounted(store)
    mount.allow_log(".")
    content = made_tar(tmp_path, "m:v1", {"w": os.urandom(1_000_000)}).read_bytes()
    archive = tmp_path / "m-v1.tar"
    run("mount", "--bind", store, store)
    try:
        run("mount", "-o", "remount,ro,bind", store)
        done = cp(archive, mount.path / "incoming")
        assert done.returncode == 1
        assert re.search("Read-only|Input/output|Invalid cross", done.stderr), done.stderr
        assert "m.tar.error" in "".join(os.listdir(mount.path / "incoming")) or os.listdir(mount.path / "incoming")
    finally:
        run("umount", "-l", store)
    assert sorted(contents(store)) == ["old:v1"]
    wait_until(lambda: staged(area_of(store)) == [], 10, "nothing is left in staging")
    run("cp", archive, mount.path / "incoming")
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert len(content) == archive.stat().st_size


def test_record_of_imports_is_lost_or_damaged(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """Imports go on without the record: it is only a record."""
    mount = mounted(store)
    mount.allow_log("record of imports")
    run("cp", made_tar(tmp_path, "m0:v1"), mount.path / "incoming")
    record = area_of(store) / "receipts.sqlite"
    for number, damage in enumerate((None, b"garbage" * 1000), 1):
        mount.stop()
        for path in record.parent.glob("receipts.sqlite*"):
            path.unlink()
        if damage:
            record.write_bytes(damage)
        mount.start()
        run("cp", made_tar(tmp_path, f"m{number}:v1"), mount.path / "incoming")
        assert imports(mount)[-1]["tag"] == f"m{number}:v1"
    for path in record.parent.glob("receipts.sqlite*"):  # while the daemon uses it
        path.unlink()
    run("cp", made_tar(tmp_path, "m9:v1"), mount.path / "incoming")
    assert sorted(contents(store)) == ["m0:v1", "m1:v1", "m2:v1", "m9:v1"]
