"""Mounts whose daemon was killed: who replaces them, and when."""

import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import home_of, make_model, mountpoints, run, wait_until
from tests.mount.cli.shell import Shell, daemons
from tests.mount.kernel.test_ordinary_user import as_ordinary_user
from tests.store.users import NOBODY, folder_of_an_ordinary_user


def kill_daemon(shell: Shell) -> None:
    (daemon,) = daemons(shell.mountpoint)
    os.kill(daemon, signal.SIGKILL)
    wait_until(lambda: not daemons(shell.mountpoint), 20, "the daemon ends")


def helper_unmounts_for_us() -> bool:
    """Tell if this machine's helper obeys `--auto-unmount`. Before 3.15 it looked into the mount as root, which only a
    mount of root allows (libfuse's issue 586)."""
    version = re.search(r"(\d+)\.(\d+)", run("fusermount", "-V").stdout)
    assert version is not None
    return os.geteuid() == 0 or (int(version[1]), int(version[2])) >= (3, 15)


def _is_unmounted(shell: Shell) -> bool:
    """Tell whether the mount goes within a few seconds."""
    end = time.monotonic() + 10
    while mountpoints(shell.mountpoint) and time.monotonic() < end:
        time.sleep(0.1)
    return not mountpoints(shell.mountpoint)


@pytest.mark.parametrize("engine", ["kernel", "libfuse2"])
def test_after_a_daemon_was_killed(shell: Shell, engine: str) -> None:
    """With `--auto-unmount` nothing is left. Without, a dead mount is left, which the next one replaces."""
    mount = ("mount", shell.mountpoint, "--engine", engine)
    # On a busy machine the helper may look before the kernel has ended the connection, and then leaves the mount.
    for _ in range(5):
        assert shell(*mount, "--auto-unmount").returncode == 0
        assert (shell.mountpoint / "README.txt").is_file()
        kill_daemon(shell)
        if not helper_unmounts_for_us() or _is_unmounted(shell):
            break
    if helper_unmounts_for_us():
        assert os.listdir(shell.mountpoint) == []
    # A helper that does not obey holds the device for a moment longer, so that the mount is not dead yet.
    wait_until(lambda: shell(*mount).returncode == 0, 20, "another mount comes up", interval=0.5)
    kill_daemon(shell)
    done = shell(*mount)  # at once: attributes that the kernel has cached say nothing of the daemon
    assert (done.returncode, done.stderr) == (0, "")
    assert (shell.mountpoint / "models/iris/latest.tar").stat().st_size > 0
    assert shell("unmount", shell.mountpoint).returncode == 0
    assert mountpoints(shell.mountpoint) == []


def test_a_dead_mount_stays_if_the_new_one_cannot_come_up(shell: Shell, tmp_path: Path) -> None:
    assert shell("mount", shell.mountpoint).returncode == 0
    kill_daemon(shell)
    assert "no model store at" in shell.refuses("mount", shell.mountpoint, "--store", tmp_path / "gone", status=3)
    assert "file" in shell.refuses("mount", shell.mountpoint, "--staging", str(make_file(tmp_path)))
    with pytest.raises(OSError, match="not connected"):
        os.listdir(shell.mountpoint)
    done = shell("unmount", shell.mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(shell.mountpoint) == []


def make_file(folder: Path) -> Path:
    path = folder / "file"
    path.touch()
    return path


def test_a_dead_mount_of_another_program_stays(shell: Shell) -> None:
    process = subprocess.Popen(["bindfs", "-f", "--no-allow-other", shell.store, shell.mountpoint])
    try:
        wait_until(lambda: mountpoints(shell.mountpoint), 20, "mounted")
    finally:
        process.kill()
        process.wait(20)
    sentence = shell.refuses("mount", shell.mountpoint)
    assert "is a mount of type fuse" in sentence
    assert "whose daemon has died: clean it up with `fusermount -u -z" in sentence
    run(*sentence.partition("`")[2].rstrip("`").split())


def test_auto_unmount_without_its_helper(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "bin"
    path.mkdir()
    arguments = ("mount", shell.mountpoint, "--engine", "kernel", "--auto-unmount")
    assert "fusermount" in shell.refuses(*arguments, PATH=str(path))


@pytest.fixture
def home() -> Iterator[Path]:
    """The home of an ordinary user. Root can be nobody."""
    with folder_of_an_ordinary_user() as folder:
        make_model(folder / "bentoml" / "models", "m:v1", {"w.bin": b"w"})
        home_of(folder)
        (folder / "mnt").mkdir()
        if os.geteuid() == 0:
            for path in folder.rglob("*"):
                os.chown(path, NOBODY, NOBODY)
        yield folder


_DIES = (
    "$bentofs mount mnt --engine kernel --foreground 2>>log & until grep -q 'is mounted at' log; do sleep 0.1; done; "
    "kill -9 $!; tail --pid=$! -f /dev/null; ls mnt; "
)


def test_one_of_an_ordinary_user(home: Path) -> None:
    """Its own user replaces it, and so does root, who may not look into it, dead or not."""
    root = (
        "{ export XDG_STATE_HOME=$0/root XDG_CACHE_HOME=$0/root; "
        "ls mnt; $bentofs mount mnt --read-only && ls mnt; $bentofs unmount mnt; }"
    )
    then = "true" if os.geteuid() == 0 else "$bentofs unmount mnt"
    done = as_ordinary_user(home, f"{_DIES} rm log; {_DIES} {then}", then_as_root=root)
    assert done.returncode == 0, done
    assert done.stderr.count(os.strerror(errno.ENOTCONN)) == 2
    if os.geteuid() == 0:
        assert os.strerror(errno.EACCES) in done.stderr
        assert done.stdout.split()[-3:] == ["README.txt", "by-format", "models"], done
