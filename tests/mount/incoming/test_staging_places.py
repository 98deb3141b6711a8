"""Places in which uploads can be staged, and those that a mount refuses."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, Mounted, ended, home_of, make_model, run, unmount_lazily, wait_until
from tests.incoming import area_of, cp, made_tar, same, spooled, staged

pytestmark = pytest.mark.root  # which mounts file systems

NOBODY = 65_534


@pytest.fixture
def disk(shared: Path) -> Iterator[Path]:
    """Another file system."""
    path = shared / "disk"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "bentofs-test", path)
    try:
        yield path
    finally:
        run("umount", "-l", path)


def refused(shared: Path, store: Path, *options: str | Path) -> str:
    """Return the sentence with which a mount is refused."""
    (shared / "refused").mkdir(exist_ok=True)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "bentofs.mount",
            "mount",
            shared / "refused",
            "--store",
            store,
            "--foreground",
            *options,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **home_of(shared / "home")},
    )
    with ended(process):
        try:
            _, said = process.communicate(timeout=30)
        finally:
            unmount_lazily(shared / "refused")
    assert process.returncode == 1, said
    assert "Traceback" not in said
    (sentence,) = said.strip().splitlines()
    return sentence


def test_staging_on_another_file_system_is_refused(shared: Path, shared_store: Path, disk: Path) -> None:
    sentence = refused(shared, shared_store, "--staging", disk / "staging")
    assert "is not on the file system of the store" in sentence
    assert "--staging" in sentence
    assert list(disk.rglob("lock")) == []


def test_a_store_that_is_a_mount_of_its_own(shared: Path, disk: Path) -> None:
    """A store that is its own mount has no staging directory outside of it. The error says so, and how to fix it. It
    can be mounted read-only. A store one level down has no such problem."""
    make_model(disk, "m:v1", {"w": b"w"})
    for options in ((), ("--staging", shared / "staging"), ("--staging", disk / "staging")):
        sentence = refused(shared, disk, *options)
        assert "--read-only" in sentence or "--staging" in sentence, sentence
    assert sorted(os.listdir(disk)) == ["m"]
    with Mounted(disk, shared / "base", options=["--read-only"]) as mounted:
        assert (mounted.path / "models/m/v1/files/w").read_bytes() == b"w"
    (disk / "models").mkdir()
    with Mounted(disk / "models", shared / "base") as mounted:
        run("cp", made_tar(shared, "n:v1"), mounted.path / "incoming")
        same(shared / "made/n/v1", disk / "models/n/v1")


def test_staging_elsewhere_on_the_same_file_system(shared: Path, shared_store: Path) -> None:
    with Mounted(shared_store, shared / "base", options=["--staging", str(shared / "elsewhere")]) as mounted:
        run("cp", made_tar(shared, "m:v1"), mounted.path / "incoming")
        same(shared / "made/m/v1", shared_store / "m/v1")
        (area,) = (shared / "elsewhere").iterdir()
        assert staged(area) == []
        assert spooled(area) == []
        assert not area_of(shared_store).exists()
        told = run(
            sys.executable,
            "-m",
            "mount",
            "imports",
            "--store",
            shared_store,
            "--staging",
            shared / "elsewhere",
            cwd=ROOT,
        ).stdout
        assert "m:v1" in told


def test_a_staging_area_of_another_user_is_refused(shared: Path, shared_store: Path) -> None:
    area_of(shared_store).mkdir()
    os.chown(area_of(shared_store), NOBODY, NOBODY)
    assert "belongs to user 65534" in refused(shared, shared_store)


def _shows_six(mounted: Mounted) -> bool:
    return len(os.listdir(mounted.path / "models")) == 6


def test_two_mounts_of_one_store(shared: Path, shared_store: Path) -> None:
    """Each mount has its own uploads. Both show each other's imports."""
    with Mounted(shared_store, shared / "a") as one, Mounted(shared_store, shared / "b") as two:
        for number in range(6):
            mounted = (one, two)[number % 2]
            run("cp", made_tar(shared, f"m{number}:v1"), mounted.path / "incoming")
        one.expect_log("half was not imported")
        done = cp("/etc/hostname", one.path / "incoming/half")
        assert done.returncode == 1
        assert os.listdir(two.path / "incoming") == []
        for mounted in (one, two):
            wait_until(functools.partial(_shows_six, mounted), 10, "all are shown")
        time.sleep(0.1)  # let the one mount do to the other's upload what it must not do
        assert sorted(os.listdir(one.path / "incoming")) == ["half", "half.error"]
