"""`scripts/start` as a newcomer runs it, with a home of their own. The environments that it needs exist already."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, home_of, make_model, mountpoints, run, unmount_lazily, wait_until

Start = Callable[..., str]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    variables = {**os.environ, **home_of(tmp_path)}
    del variables["BENTOML_HOME"]  # so that ~/bentoml counts, as for most people
    return variables


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """A mountpoint with a space, which the script must quote in its output."""
    path = tmp_path / "my models"
    yield path
    if mountpoints(path):
        unmount_lazily(path)


@pytest.fixture
def start(environment: dict[str, str]) -> Start:
    def run_script(*arguments: str | Path, **more: str) -> str:
        return run(ROOT / "scripts" / "start", *arguments, env={**environment, **more}, seconds=120).stdout

    return run_script


def commands_in(printed: str) -> list[str]:
    tries = printed.partition("\nTry:\n")[2].partition("\n\n")[0].splitlines()
    assert len(tries) == 3, printed
    return [line.strip() for line in tries]


def unmount(printed: str, environment: dict[str, str]) -> None:
    command = re.search(r"^To unmount: (.*)$", printed, re.MULTILINE)
    assert command
    run(*shlex.split(command[1]), env=environment)


def test_sample_store(start: Start, mountpoint: Path, environment: dict[str, str], tmp_path: Path) -> None:
    printed = start(mountpoint)
    assert "sample store" in printed
    assert sorted(os.listdir(mountpoint / "models")) == ["iris-species", "language-id"]

    for command in commands_in(printed):
        # Run it unchanged in the shell, like someone who pastes it.
        done = subprocess.run(
            ["bash", "-c", command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (tmp_path / "home" / "iris-species-v1.bentomodel").stat().st_size > 1000

    predict = mountpoint / "models" / "iris-species" / "latest" / "files" / "predict.py"
    assert run("python3", predict, "5.1", "3.5", "1.4", "0.2").stdout == "setosa\n"

    again = start(mountpoint)
    assert "Already mounted" in again
    assert commands_in(again) == commands_in(printed)

    unmount(printed, environment)
    assert mountpoints(mountpoint) == []


def test_own_store(start: Start, mountpoint: Path, environment: dict[str, str], tmp_path: Path) -> None:
    make_model(tmp_path / "home" / "bentoml" / "models", "mine:v1", {"weights.bin": b"\1" * 1000})
    printed = start(mountpoint)
    assert "sample" not in printed
    assert os.listdir(mountpoint / "models") == ["mine"]
    assert "mine-v1.bentomodel" in commands_in(printed)[0]
    unmount(printed, environment)


def test_own_store_behind_a_link(start: Start, mountpoint: Path, environment: dict[str, str], tmp_path: Path) -> None:
    """The models may lie on another disk, behind a link."""
    make_model(tmp_path / "disk", "mine:v1")
    (tmp_path / "home" / "bentoml").mkdir(parents=True)
    (tmp_path / "home" / "bentoml" / "models").symlink_to(tmp_path / "disk")
    printed = start(mountpoint)
    assert os.listdir(mountpoint / "models") == ["mine"]
    unmount(printed, environment)


def test_cdpath_leads_nowhere_else(mountpoint: Path, environment: dict[str, str], tmp_path: Path) -> None:
    make_model(tmp_path / "home" / "bentoml" / "models", "mine:v1")
    (tmp_path / "projects" / "scripts").mkdir(parents=True)
    environment = {**environment, "CDPATH": str(tmp_path / "projects")}
    printed = run("bash", "scripts/start", mountpoint, env=environment, cwd=ROOT, seconds=120).stdout
    assert os.listdir(mountpoint / "models") == ["mine"]
    unmount(printed, environment)


def test_bentoml_home_counts(start: Start, mountpoint: Path, environment: dict[str, str], tmp_path: Path) -> None:
    make_model(tmp_path / "elsewhere" / "models", "theirs:v1")
    printed = start(mountpoint, BENTOML_HOME=str(tmp_path / "elsewhere"))
    assert os.listdir(mountpoint / "models") == ["theirs"]
    unmount(printed, environment)


def test_default_mountpoint(start: Start, environment: dict[str, str], tmp_path: Path) -> None:
    default = tmp_path / "home" / "bentofs"
    try:
        printed = start()
        assert default in mountpoints(default)
        unmount(printed, environment)
        assert mountpoints(default) == []
    finally:
        if mountpoints(default):
            unmount_lazily(default)


def test_default_mountpoint_where_the_project_was_cloned(environment: dict[str, str], tmp_path: Path) -> None:
    """`git clone` in the home makes ~/bentofs, which is not empty then."""
    home = tmp_path / "home"
    (home / "bentofs").symlink_to(ROOT)
    mountpoint = home / "bentofs-mount"
    try:
        printed = run(home / "bentofs" / "scripts" / "start", env=environment, seconds=120).stdout
        assert mountpoints(home) == [mountpoint]
        unmount(printed, environment)
        assert mountpoints(home) == []
    finally:
        if mountpoints(mountpoint):
            unmount_lazily(mountpoint)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH like that of a machine where nothing of FUSE is installed. Its apt-get only notes what it is asked."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for tool in os.scandir(place):
            if tool.name not in ("fusermount", "fusermount3", "apt-get", "ldconfig", "sudo"):
                with contextlib.suppress(FileExistsError):
                    (folder / tool.name).symlink_to(tool.path)
    for name in ("apt-get", "sudo", "ldconfig"):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/asked\nexit 1\n')
        (folder / name).chmod(0o755)
    return folder


def test_root_installs_nothing(mountpoint: Path, tools: Path, environment: dict[str, str]) -> None:
    become_root = [] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    script = '"$0" "$1" && exec "$2" unmount "$1"'
    printed = run(
        *(*become_root, "sh", "-c", script, ROOT / "scripts" / "start", mountpoint, ROOT / ".venv/bin/bentofs"),
        env={**environment, "PATH": str(tools), "PYTHON": sys.executable, "FUSE_LIBRARY_PATH": "/nonexistent"},
    ).stdout
    assert commands_in(printed)
    assert not (tools.parent / "asked").exists()


def test_others_install_the_helper_only(mountpoint: Path, tools: Path, environment: dict[str, str]) -> None:
    """Run as the user nobody, who may read where the project lies."""
    become = ["setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps", "+dac_read_search"]
    become += ["--ambient-caps", "+dac_read_search"]
    done = subprocess.run(
        [*(become if os.geteuid() == 0 else []), ROOT / "scripts" / "start", mountpoint],
        env={**environment, "PATH": str(tools), "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Installing from your distribution: fuse3\n" in done.stderr
    assert not mountpoints(mountpoint)


def daemon_of(mountpoint: Path) -> int:
    """Return the process that serves a mount, found by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(mountpoint) in words and b"mount" in words:
                return int(folder.name)
    raise AssertionError(f"no daemon serves {mountpoint}")


def test_dead_mount_is_replaced(start: Start, mountpoint: Path, environment: dict[str, str]) -> None:
    start(mountpoint)
    os.kill(daemon_of(mountpoint), signal.SIGKILL)
    wait_until(lambda: not os.path.exists(mountpoint / "README.txt"), 10, "the mount is dead")
    unmount(start(mountpoint), environment)


def test_mountpoint_through_a_link(start: Start, mountpoint: Path, environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    printed = start(tmp_path / "link" / mountpoint.name)
    assert mountpoints(mountpoint) == [mountpoint]
    assert "Already mounted" in start(tmp_path / "link" / mountpoint.name)
    unmount(printed, environment)


def test_sample_store_is_the_same_everywhere(tmp_path: Path) -> None:
    for name, umask in (("one", "022"), ("two", "077")):
        store = tmp_path / name
        python = ROOT / ".venv" / "bin" / "python"
        run(
            "sh",
            "-c",
            f'umask {umask}; TZ=Asia/Tokyo "$0" "$1" "$2"',
            python,
            ROOT / "scripts" / "sample_store.py",
            store,
        )
    assert run("diff", "-r", tmp_path / "one", tmp_path / "two").stdout == ""
