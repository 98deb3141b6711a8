"""The kernel reads files of the store itself, past the daemon, where it can: as root, from Linux 6.9 on."""

import hashlib
import mmap
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.harness import Mounted, make_model, run, unmount_lazily

CONTENT = os.urandom(3_000_000)
IS_POSSIBLE = os.geteuid() == 0 and tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) >= (6, 9)


@pytest.fixture(params=["--passthrough", "--no-passthrough"])
def option(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def mount(store: Path, mounted: Callable[..., Mounted], option: str) -> Mounted:
    make_model(store, "m:v1", {"w.bin": CONTENT, "small": b"small"})
    return mounted(store, options=["--engine", "kernel", option])


def test_reading(mount: Mounted, tmp_path: Path) -> None:
    for path in (mount.path / "models/m/v1/files/w.bin", mount.path / "by-format/folder/m/v1/w.bin"):
        assert path.read_bytes() == CONTENT
        run("cp", path, tmp_path / "copy")
        run("cmp", path, tmp_path / "copy")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert mapped[:] == CONTENT
            assert os.pread(file.fileno(), 100, 2_999_950) == CONTENT[-50:]
    assert mount.archive("m:v1", ".tar").stat().st_size == len(mount.archive("m:v1", ".tar").read_bytes())


def test_opened_by_many_at_once(mount: Mounted) -> None:
    """All opens of one file share one backing file. A mixture would be EIO."""
    path = mount.path / "models/m/v1/files/w.bin"

    def read(number: int) -> None:
        for _ in range(20):
            with path.open("rb") as file:
                file.seek(number * 100_000)
                assert file.read(1000) == CONTENT[number * 100_000 : number * 100_000 + 1000]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def test_the_daemon_is_not_asked(mount: Mounted, option: str) -> None:
    """If the kernel reads an open file itself, it can be read while the daemon is stopped."""
    descriptor = os.open(mount.path / "models/m/v1/files/w.bin", os.O_RDONLY)
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        command = ["dd", "bs=1M", "iflag=fullblock", "status=none", "of=/dev/null"]
        with subprocess.Popen(command, stdin=descriptor) as reader:
            if option == "--passthrough" and IS_POSSIBLE:
                assert reader.wait(20) == 0
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    reader.wait(0.5)
            os.kill(mount.pid, signal.SIGCONT)
            assert reader.wait(20) == 0
    finally:
        os.kill(mount.pid, signal.SIGCONT)
        os.close(descriptor)


def test_replaced_while_it_is_open(mount: Mounted, store: Path) -> None:
    path = mount.path / "models/m/v1/files/w.bin"
    with path.open("rb", buffering=0) as file:
        assert file.read(1000) == CONTENT[:1000]
        new = store / "m/v1/new"
        new.write_bytes(CONTENT[::-1])
        new.rename(store / "m/v1/w.bin")
        assert file.read(1000) == CONTENT[1000:2000]
        assert path.read_bytes() in (CONTENT, CONTENT[::-1])  # within two seconds
    assert not mount.log().count("unexpectedly")


def test_edited_in_place(mount: Mounted, store: Path, option: str) -> None:
    """If the kernel reads the file itself, a reader sees the edit, like on the store's own disk. Otherwise it gets
    ESTALE."""
    path = mount.path / "models/m/v1/files/w.bin"
    with path.open("rb", buffering=0) as file, (store / "m/v1/w.bin").open("rb+") as original:
        original.seek(2_000_000)
        original.write(b"edited")
        original.flush()
        if option == "--passthrough" and IS_POSSIBLE:
            assert os.pread(file.fileno(), 6, 2_000_000) == b"edited"
        else:
            with pytest.raises(OSError, match="Stale"):
                os.pread(file.fileno(), 6, 2_000_000)


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A store on an overlay, as in containers."""
    assert os.geteuid() == 0, "only root mounts an overlay"
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "none", disk)
    try:
        for name in ("lower", "upper", "work", "merged"):
            (disk / name).mkdir()
        places = f"lowerdir={disk}/lower,upperdir={disk}/upper,workdir={disk}/work"
        run("mount", "-t", "overlay", "overlay", "-o", places, disk / "merged")
        store = disk / "merged" / "models"
        store.mkdir()
        yield store
    finally:
        unmount_lazily(disk / "merged")
        unmount_lazily(disk)


@pytest.mark.root
def test_a_store_on_an_overlay(overlay: Path, mounted: Callable[..., Mounted]) -> None:
    """Two file systems lie between the kernel and the disk."""
    make_model(overlay, "m:v1", {"w.bin": CONTENT})
    mount = mounted(overlay, options=["--engine", "kernel"])
    with (mount.path / "models/m/v1/files/w.bin").open("rb") as file:
        if IS_POSSIBLE:
            os.kill(mount.pid, signal.SIGSTOP)
        try:
            done = subprocess.run(["sha256sum"], stdin=file, capture_output=True, text=True, timeout=20, check=True)
        finally:
            os.kill(mount.pid, signal.SIGCONT)
    assert done.stdout.split()[0] == hashlib.sha256(CONTENT).hexdigest()
    mount.stop()
