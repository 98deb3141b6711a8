"""Faults while models come in: the daemon, the disk, the store, the mount fail. The store has the whole model or none,
`bentoml models list` works, acknowledged models are there, and nothing stays in staging."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.surviving import ROUNDS, bentoml_lists, clean_area
from tests.harness import Mounted, ended, make_model, run, unmount_lazily, wait_until
from tests.incoming import area_of, cp, made, made_tar, same, staged, tar_of
from tests.store.staged import contents

CREATED = ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00")


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
        time.sleep(chance.uniform(0.0, 0.3))  # any moment of the copies
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
        time.sleep(chance.uniform(0.0, 0.25))  # any moment of the copies
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
    time.sleep(2.5)  # let the quiet time and a look of the daemon pass: nothing must be imported
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
    time.sleep(2.5)  # let the quiet time and a look of the daemon pass: half of it must not be imported
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
        time.sleep(chance.uniform(0.0, 0.3))  # any moment of the copies
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
            time.sleep(chance.uniform(0.0, 0.04))  # any moment of the import
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
                time.sleep(chance.uniform(0.0, 0.01))  # any later moment
            code = copier.wait(30)
        contents(store)
        if code == 0:
            assert (store / f"m{number}/v1/model.yaml").is_file(), "acknowledged, and not there"
        if (store / f"m{number}").exists() and any((store / f"m{number}").iterdir()):
            same(tmp_path / f"made/m{number}/v1", store / f"m{number}/v1")
    wait_until(lambda: staged(area_of(store)) == [], 10, "nothing is left in staging")
