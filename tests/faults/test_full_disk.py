"""A disk that fills up under `incoming/`."""

import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.surviving import ROUNDS, bentoml_lists
from tests.harness import Mounted, make_model, run, wait_until
from tests.incoming import area_of, cp, imports, made, made_tar, same, staged, tar_of
from tests.store.staged import contents


def free(disk: Path) -> int:
    figures = os.statvfs(disk)
    return figures.f_bavail * figures.f_frsize


def fill(disk: Path, leave: int) -> None:
    """Fill the disk until so many bytes are left."""
    with (disk / "filler").open("wb") as file, suppress(OSError):
        while (rest := free(disk) - leave) > 0:
            file.write(bytes(min(rest, 1 << 20)))
            file.flush()


@pytest.mark.parametrize("where", ["spooling", "staging", "expanding", "members", "nothing left"])
def test_full_disk(small_disk: Path, mounted: Callable[..., Mounted], tmp_path: Path, where: str) -> None:
    store = small_disk / "bentoml" / "models"
    make_model(store, "old:v1", {"w": b"old"})
    mount = mounted(store)
    mount.allow_log("was not imported|no note of it|record of imports|No space left|room left")
    files: dict[str | bytes, bytes | int] = {"w": os.urandom(500_000)}
    if where == "spooling":
        files["big"] = os.urandom(90 << 20)
    elif where == "staging":
        files["big"] = os.urandom(45 << 20)
    elif where == "expanding":
        files["big"] = 200 << 20
    elif where == "members":
        files |= {f"{number}": b"x" for number in range(4000)}
    model = made(tmp_path, "m:v1", files)
    archive = tar_of(model, tmp_path / "m.tar", "w:gz" if where in ("expanding", "members") else "w")
    if where == "nothing left":
        fill(small_disk, 0)
    done = cp(archive, mount.path / "incoming")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert sorted(contents(store)) == ["old:v1"]
    wait_until(lambda: staged(area_of(store)) == [], 20, "nothing is left in staging")
    if where != "nothing left":
        assert re.search("no room|no space", (mount.path / "incoming/m.tar.error").read_text())
        assert imports(mount)[-1]["errno"] == "ENOSPC"
    # The import works again when there is room.
    (small_disk / "filler").unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (mount.path / "incoming/m.tar").unlink()
    wait_until(lambda: free(small_disk) > 70 << 20, 20, "the room is given back")
    run("cp", made_tar(tmp_path, "next:v1"), mount.path / "incoming")
    assert imports(mount)[-1]["state"] == "imported"
    same(tmp_path / "made/next/v1", store / "next/v1")
    if where == "nothing left":
        bentoml_lists(store)


def test_full_disk_and_a_model_that_comes_as_a_folder(
    small_disk: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """A folder that was cut short is no model, although nothing more comes, until the file is written anew."""
    store = small_disk / "bentoml" / "models"
    mount = mounted(store, options=["--settle", "1"])
    mount.expect_log("m was not imported: .*w could not be written", times=1)
    big = made(tmp_path, "m:v1", {"w": os.urandom(90 << 20)})
    assert "No space left" in cp("-r", big, mount.path / "incoming/m").stderr
    wait_until((mount.path / "incoming/m.error").exists, 20, "it is refused")
    time.sleep(2.5)  # let the quiet time and a look of the daemon pass: it must not be imported
    assert contents(store) == {}
    (big / "w").write_bytes(b"w")
    run("cp", big / "w", mount.path / "incoming/m")
    wait_until((store / "m/v1").exists, 20, "it is imported")
    same(big, store / "m/v1")


def test_full_disk_and_an_archive_in_a_folder(
    small_disk: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """The archive may be a file of its folder. Nobody can know that without looking into it."""
    store = small_disk / "bentoml" / "models"
    mount = mounted(store)
    mount.expect_log("in/m.tar.gz was not imported: .*(room|space)", times=1)
    mount.allow_log("record of imports")
    (tmp_path / "in").mkdir()
    tar_of(made(tmp_path, "m:v1", {"w": 200 << 20}), tmp_path / "in/m.tar.gz", "w:gz")
    done = cp("-r", tmp_path / "in", mount.path / "incoming")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert contents(store) == {}
    wait_until(lambda: staged(area_of(store)) == [], 20, "nothing is left in staging")


def test_a_program_that_goes_on_after_a_failed_write(
    small_disk: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """A program that goes on would leave a hole of zeros. In a plain tar nothing tells it from content."""
    store = small_disk / "bentoml" / "models"
    mount = mounted(store)
    mount.expect_log("m.tar was not imported: .*room", times=1)
    content = made_tar(tmp_path, "m:v1", {"w": os.urandom(1 << 20)}).read_bytes()
    file = os.open(mount.path / "incoming/m.tar", os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(file, content[: 256 << 10], 0)
        fill(small_disk, 1 << 20)
        with pytest.raises(OSError, match="No space left"):
            os.pwrite(file, content[256 << 10 : 384 << 10], 256 << 10)
        (small_disk / "filler").unlink()
        wait_until(lambda: free(small_disk) > 70 << 20, 20, "there is room again")
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                os.pwrite(file, content[384 << 10 :], 384 << 10)
            os.pwrite(file, content[:1000], 0)  # this repairs nothing
        with pytest.raises(OSError, match="No space left"):
            os.close(os.dup(file))
        assert contents(store) == {}
        os.pwrite(file, content[256 << 10 : 384 << 10], 256 << 10)
        os.pwrite(file, content[384 << 10 :], 384 << 10)
    finally:
        os.close(file)
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_disk_that_fills_up_at_any_moment(small_disk: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """Any system call may fail."""
    store = small_disk / "bentoml" / "models"
    mount = mounted(store)
    mount.allow_log("was not imported|no note of it|record of imports|No space left|room|is in the store, but|undone")
    codes = []
    for number in range(ROUNDS):
        archive = made_tar(tmp_path, f"m{number}:v1", {str(part): os.urandom(300_000) for part in range(10)})
        filler = threading.Thread(target=fill, args=(small_disk, number * 300_000))
        copier = threading.Thread(
            target=lambda archive=archive: codes.append(cp(archive, mount.path / "incoming").returncode)
        )
        for thread in random.Random(number).sample([filler, copier], 2):
            thread.start()
            time.sleep(random.Random(number).uniform(0, 0.02))  # any moment of the other
            if number % 4 == 3 and thread is filler:
                filler.join(60)  # full before the copy begins, where that comes second: one copy at least must fail
        for thread in (filler, copier):
            thread.join(60)
            assert not thread.is_alive()
        there = (store / f"m{number}/v1").exists()
        contents(store)
        if there:
            same(tmp_path / f"made/m{number}/v1", store / f"m{number}/v1")
        assert there or codes[-1]
        (small_disk / "filler").unlink(missing_ok=True)
        for left in os.listdir(mount.path / "incoming"):
            (mount.path / "incoming" / left).unlink()
        shutil.rmtree(store / f"m{number}", ignore_errors=True)
        if re.search("is in the store, but|could not be undone", mount.log()):
            mount.stop()
            mount.start()  # ends what there was no room for
        wait_until(lambda: staged(area_of(store)) == [], 20, "nothing is left in staging")
    assert {0, 1} <= set(codes)
