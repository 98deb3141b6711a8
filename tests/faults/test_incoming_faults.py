"""Faults while models come in: the daemon, the disk, the store, the mount fail. The store has the whole model or none,
`bentoml models list` works, acknowledged models are there, and nothing stays in staging."""

import errno
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import Mounted, ended, make_model, run, unmount_lazily, wait_until
from tests.incoming import area_of, cp, imports, made, made_tar, record, same, send, spooled, staged, tar_of
from tests.interop.conftest import Judge
from tests.store.staged import contents

ROUNDS = int(os.environ.get("BENTOFS_ROUNDS", "16"))  # kills at random moments; more for a long campaign
CREATED = ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")


def bentoml_lists(store: Path) -> None:
    """Check that both releases read the store. Its home is two folders up."""
    for release in ("1.4", "1.2"):
        Judge(release).cli(store.parent.parent, "models", "list")


def models_of(base: Path, count: int, round_number: int) -> dict[str, Path]:
    """Make archives of several formats, by tag. Their models lie in `base`/made."""
    archives = {}
    for number in range(count):
        tag = f"m{round_number}:v{number}"
        model = made(base, tag, {"w": os.urandom(200_000), "d/e": b"e" * 5000, "d/empty/": b"", "f": b"f"})
        form = ("", "gz", "xz")[number % 3]
        archives[tag] = tar_of(model, base / f"{tag.replace(':', '-')}.tar", f"w:{form}" if form else "w")
    return archives


class Copies:
    """Runs cp after cp in two threads, and records the acknowledged tags."""

    def __init__(self, mount: Mounted, archives: dict[str, Path]) -> None:
        self.acknowledged: list[str] = []
        self._mount = mount
        items = list(archives.items())
        self._threads = [threading.Thread(target=self._copy, args=(items[half::2],)) for half in (0, 1)]
        for thread in self._threads:
            thread.start()

    def _copy(self, items: list[tuple[str, Path]]) -> None:
        for tag, archive in items:
            # -t: without the mount, "incoming" must not become a file.
            if cp("-t", self._mount.path / "incoming", archive).returncode == 0:
                self.acknowledged.append(tag)

    def wait(self) -> list[str]:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.acknowledged


def whole_or_none(base: Path, store: Path, tags: list[str], acknowledged: list[str]) -> int:
    """Check that every model in the store is whole, and that acknowledged ones are there. Return how many models are
    there."""
    contents(store)
    there = 0
    for tag in tags:
        folder = store.joinpath(*tag.split(":"))
        if folder.exists():
            same(base.joinpath("made", *tag.split(":")), folder)
            there += 1
        else:
            assert tag not in acknowledged, f"{tag} was acknowledged and is not there"
    return there


def clean_area(mount: Mounted) -> None:
    """Check the staging area after a start: whole uploads are decided, and nothing else is left."""
    area = area_of(mount.store)
    wait_until(lambda: all(receipt.state.ended for receipt in record(mount)), 30, "what was whole is decided")
    assert staged(area) == []
    assert len(list(area.glob("sessions/*"))) == 1


def remove_leftovers(mount: Mounted) -> None:
    """Check that spooled uploads are shown again and can be removed."""
    for name in os.listdir(mount.path / "incoming"):
        (mount.path / "incoming" / name).unlink(missing_ok=True)  # a note goes with its file
    assert os.listdir(mount.path / "incoming") == []


def test_killed_at_any_moment(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    chance = random.Random(1)
    mount = mounted(store)
    mount.allow_log("was not imported")
    seen = 0
    for number in range(ROUNDS):
        archives = models_of(tmp_path, 8, number)
        copies = Copies(mount, archives)
        time.sleep(chance.uniform(0.0, 0.3))
        mount.process.send_signal(signal.SIGKILL)
        mount.process.wait(20)
        unmount_lazily(mount.path)
        acknowledged = copies.wait()
        mount.kill()
        whole_or_none(tmp_path, store, list(archives), acknowledged)
        mount.start()
        clean_area(mount)
        seen += whole_or_none(tmp_path, store, list(archives), acknowledged)
        for entry in store.glob("*/latest"):
            assert (entry.parent / entry.read_text()).is_dir()
        remove_leftovers(mount)
        # The models that did not get in can still be imported.
        for tag in [tag for tag in archives if not store.joinpath(*tag.split(":")).exists()][:2]:
            run("cp", archives[tag], mount.path / "incoming")
    assert 0 < seen < ROUNDS * 8  # else no kill was in the middle
    bentoml_lists(store)


def test_killed_while_overwriting(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """After a kill, the store has the old model or the new one, never a mixture, never none."""
    chance = random.Random(3)
    archives = {}
    for kind in (0, 1):
        folder = made(
            tmp_path / str(kind),
            "m:v1",
            {f"{name}": os.urandom(80_000) for name in "abcdef"},
            creation_time=CREATED[kind],
        )
        archives[kind] = (folder, tar_of(folder, tmp_path / f"m{kind}.tar"))
    mount = mounted(store, options=["--overwrite"])
    mount.allow_log("was not imported")
    run("cp", archives[0][1], mount.path / "incoming")
    outcomes = set()
    for _ in range(ROUNDS):
        acknowledged: list[int] = []

        def copy(acknowledged: list[int] = acknowledged) -> None:
            for number in range(12):
                if cp("-t", mount.path / "incoming", archives[(number + 1) % 2][1]).returncode:
                    return
                acknowledged.append((number + 1) % 2)

        copier = threading.Thread(target=copy)
        copier.start()
        time.sleep(chance.uniform(0.0, 0.25))
        mount.process.send_signal(signal.SIGKILL)
        mount.process.wait(20)
        unmount_lazily(mount.path)
        copier.join(60)
        mount.kill()
        mount.start()
        clean_area(mount)
        assert os.listdir(store / "m/v1"), "neither the old nor the new one"
        kind = int(CREATED[1] in (store / "m/v1/model.yaml").read_text())
        same(archives[kind][0], store / "m/v1")
        if acknowledged:  # the last one, or the one after it
            outcomes.add(kind == acknowledged[-1])
        contents(store)
        assert (store / "m/latest").read_text() == "v1"
        remove_leftovers(mount)
    assert outcomes
    bentoml_lists(store)


def killed(mount: Mounted) -> None:
    mount.process.send_signal(signal.SIGKILL)
    mount.process.wait(20)
    mount.kill()


def test_killed_right_after_a_folder_has_replaced_a_model(
    store: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """The old model lies in its place in staging then. It must not become an upload, which would replace the new one in
    its turn."""
    make_model(store, "m:v1", {"w": b"old"})
    new = made(tmp_path, "m:v1", {"w": b"new"})
    mount = mounted(store, options=["--overwrite", "--settle", "1"])
    with (area_of(store) / "latest.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run("cp", "-r", new, mount.path / "incoming/m")
        wait_until(lambda: (store / "m/v1/w").read_bytes() == b"new", 20, "the new one is in its place")
        killed(mount)
    mount.start()
    assert os.listdir(mount.path / "incoming") == []
    clean_area(mount)
    time.sleep(3)
    same(new, store / "m/v1")


def test_killed_while_a_folder_that_is_there_already_is_removed(
    store: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """Half a folder must not become an upload, which would replace the whole one."""
    files: dict[str | bytes, bytes | int] = {f"{number}": b"w" for number in range(3000)}
    shutil.copytree(made(tmp_path, "m:v1", files), store / "m/v1")
    run("cp", tmp_path / "made/m/latest", store / "m")
    run("touch", "-d", "yesterday", store / "m/v1")  # BentoML marks a finished model this way
    mount = mounted(store, options=["--overwrite", "--settle", "1"])
    run("cp", "-r", tmp_path / "made/m/v1", mount.path / "incoming/m")

    def shrinks() -> bool:
        for place in ("importing/*/m", "staged/*"):
            for taken in area_of(store).glob(f"sessions/*/{place}"):
                with suppress(FileNotFoundError):
                    return len(os.listdir(taken)) < len(files)
        return "m" not in os.listdir(mount.path / "incoming") and not staged(area_of(store))

    wait_until(shrinks, 60, "it is being removed, or has been", interval=0.0005)
    killed(mount)
    mount.start()
    time.sleep(3)
    wait_until(lambda: os.listdir(mount.path / "incoming") == [], 20, "nothing is left, or it was imported again")
    same(tmp_path / "made/m/v1", store / "m/v1")


def test_terminated_at_any_moment(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """The daemon ends cleanly and soon, whatever comes in."""
    chance = random.Random(4)
    mount = mounted(store)
    mount.allow_log("was not imported")
    for number in range(ROUNDS // 2):
        archives = models_of(tmp_path, 8, number)
        copies = Copies(mount, archives)
        time.sleep(chance.uniform(0.0, 0.3))
        mount.stop()
        acknowledged = copies.wait()
        whole_or_none(tmp_path, store, list(archives), acknowledged)
        assert staged(area_of(store)) == []
        mount.start()
        clean_area(mount)
        whole_or_none(tmp_path, store, list(archives), acknowledged)
        remove_leftovers(mount)


def test_terminated_with_an_upload_that_has_stopped(
    store: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """The bytes so far are kept, and the upload can be finished after the next mount."""
    mount = mounted(store)
    mount.allow_log("was not imported")
    content = made_tar(tmp_path, "m:v1", {"w": os.urandom(2_000_000)}).read_bytes()
    with (mount.path / "incoming/m.tar").open("wb", 0) as file:
        file.write(content[:1_000_000])
        with suppress(AssertionError):  # our handle keeps the mount alive for a while
            mount.stop()
        mount.kill()
        with suppress(OSError):
            file.close()
    mount._expectations.clear()
    mount.start()
    clean_area(mount)
    assert len((mount.path / "incoming/m.tar").read_bytes()) == 1_000_000
    with (mount.path / "incoming/m.tar").open("ab", 0) as file:
        file.write(content[1_000_000:])
    same(tmp_path / "made/m/v1", store / "m/v1")
    assert os.listdir(mount.path / "incoming") == []


def test_unmounted_lazily_in_the_middle(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """A running upload ends normally; then the daemon ends too."""
    mount = mounted(store)
    archive = made_tar(tmp_path, "m:v1", {"w": os.urandom(3_000_000)})
    os.mkfifo(tmp_path / "pipe")
    target = mount.path / "incoming/m.tar"
    command = ["dd", f"if={tmp_path}/pipe", f"of={target}", "bs=64k", "iflag=fullblock"]
    with ended(subprocess.Popen(command, stderr=subprocess.DEVNULL)) as copier:
        with (tmp_path / "pipe").open("wb", 0) as feed:
            content = archive.read_bytes()
            feed.write(content[:1_500_000])
            wait_until(lambda: target.exists() and target.stat().st_size > 1_000_000, 20, "the upload has begun")
            unmount_lazily(mount.path)
            feed.write(content[1_500_000:])
        code = copier.wait(30)
    assert (store / "m/v1").exists() == (code == 0)
    wait_until(lambda: mount.process.poll() is not None, 30, "the daemon ends")
    mount.kill()
    mount.start()
    clean_area(mount)
    if code == 0:
        same(tmp_path / "made/m/v1", store / "m/v1")
    else:
        assert (mount.path / "incoming/m.tar").exists()


@pytest.mark.parametrize("how", ["removed", "truncated", "replaced by a rename", "copied over"])
def test_removed_while_it_is_published(store: Path, mounted: Callable[..., Mounted], tmp_path: Path, how: str) -> None:
    """Removing the name in incoming/ at that moment does nothing to the model."""
    chance = random.Random(how)
    mount = mounted(store)
    mount.allow_log("was not imported")
    junk = tmp_path / "junk"
    junk.write_bytes(b"")
    for number in range(ROUNDS):
        tag = f"m{number}:v1"
        archive = made_tar(tmp_path, tag, {f"{name}": os.urandom(20_000) for name in "abcdefghij"})
        name = mount.path / "incoming" / archive.name
        with ended(subprocess.Popen(["cp", archive, name], stderr=subprocess.DEVNULL)) as copier:
            time.sleep(chance.uniform(0.0, 0.04))
            for _ in range(3):
                with suppress(OSError):
                    if how == "removed":
                        name.unlink()
                    elif how == "truncated":
                        os.truncate(name, 0)
                    elif how == "copied over":
                        cp(archive, name)
                    else:
                        name.with_suffix(".part").write_bytes(b"")
                        name.with_suffix(".part").rename(name)
                time.sleep(chance.uniform(0.0, 0.01))
            code = copier.wait(30)
        contents(store)
        if code == 0:
            assert (store / f"m{number}/v1/model.yaml").is_file(), "acknowledged, and not there"
        if (store / f"m{number}").exists() and any((store / f"m{number}").iterdir()):
            same(tmp_path / f"made/m{number}/v1", store / f"m{number}/v1")
    wait_until(lambda: staged(area_of(store)) == [], 10, "nothing is left in staging")


# The disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Make a file system of 80 MiB with a store in it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=80m,nr_inodes=3000,mode=755", "bentofs-test", disk)
    try:
        (disk / "bentoml" / "models").mkdir(parents=True)
        yield disk
    finally:
        run("umount", "-l", disk)


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
    time.sleep(2)
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
            time.sleep(random.Random(number).uniform(0, 0.02))
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
        wait_until(lambda: staged(area_of(store)) == [], 20, "nothing is left in staging")
    assert {0, 1} <= set(codes)


# The store.


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


# Durable before it is acknowledged.


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
    mount = mounted(store)
    files: dict[str | bytes, bytes | int] = {f"d{number % 5}/{number}": os.urandom(3000) for number in range(count)}
    model = made(tmp_path, "m:v1", {**files, "large": os.urandom(5_000_000), "deep/er/empty/": b""})
    ended_at: list[float] = []

    def work() -> None:
        send(model, form, mount, tmp_path)
        ended_at.append(time.time())
        time.sleep(0.5)

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
    mount = mounted(store)
    time.sleep(0.1)
    os.utime(store / "m/v1", (1, 1))
    calls = traced(mount, tmp_path, lambda: run("cp", archive, mount.path / "incoming"))
    assert imports(mount)[-1]["state"] == "unchanged"
    synced = {path for _, call, text in calls if call == "fsync" for path in re.findall(r"<([^<>]*)>", text)[:1]}
    for path in (store / "m/v1/w", store / "m/v1/d/e", store / "m/v1/model.yaml", store / "m/v1", store / "m", store):
        assert str(path) in synced


def test_power_is_lost_for_the_spool(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """A spooled upload that lost its tail is not taken for a whole one: it is cut short, or has holes of zeros."""
    mount = mounted(store)
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
