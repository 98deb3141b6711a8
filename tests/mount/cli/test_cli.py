"""The command line: its effects, and the one sentence that it prints when it fails."""

import contextlib
import importlib.abc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bentofs.mount.__main__ import main
from bentofs.mount.cli.inspect import verify_command
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.integrity.verify import VerifyReport, verify_model
from tests.harness import ROOT, ended, home_of, make_model, mountpoints, run, unmount_lazily, wait_until
from tests.mount.cli.shell import Shell, daemons
from tests.store.users import NOBODY


def test_mount_and_unmount(shell: Shell) -> None:
    done = shell("mount", shell.mountpoint)
    assert done.returncode == 0, done.stderr
    assert str(shell.store) in done.stdout  # by default $BENTOML_HOME/models
    assert (shell.mountpoint / "models/iris/latest.tar").stat().st_size > 0  # it answers at once
    assert len(daemons(shell.mountpoint)) == 1
    done = shell("unmount", shell.mountpoint)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not daemons(shell.mountpoint)
    assert not mountpoints(shell.mountpoint)
    state = Path(shell.environment["XDG_STATE_HOME"]) / "bentofs"
    logs = [path for path in state.iterdir() if path.name != "digests.sqlite"]
    assert [path.suffix for path in logs] == [".log"]
    assert "WARNING" not in logs[0].read_text()
    assert logs[0].parent.stat().st_mode & 0o777 == 0o700


def test_unmount_waits_for_a_daemon_that_another_session_started(shell: Shell, tmp_path: Path) -> None:
    """The daemon's state lies elsewhere, and its command line names the mountpoint in another way."""
    (tmp_path / "link").symlink_to(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "bentofs.mount", "mount", "link/mnt", "--foreground"],
        cwd=tmp_path,
        env=shell.environment | {"XDG_STATE_HOME": str(tmp_path / "elsewhere"), "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    with ended(process):
        wait_until(lambda: mountpoints(shell.mountpoint), 20, "mounted")
        done = shell("unmount", shell.mountpoint)
        # Nobody has waited for the ended process. It is a zombie, and holds nothing.
        assert (done.returncode, done.stderr) == (0, "")
        assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
        assert process.wait(10) == 0


def test_default_store_without_bentoml_home(shell: Shell) -> None:
    home = Path(shell.environment["HOME"])
    make_model(home / "bentoml" / "models", "other:v1", {})
    listed = shell("list", "--json", BENTOML_HOME="")
    assert [model["tag"] for model in json.loads(listed.stdout)] == ["other:v1"]


@pytest.mark.parametrize("closed", [">&- 2>&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_closed_standard_descriptors(shell: Shell, closed: str) -> None:
    """Later opened files must not get the numbers of closed standard descriptors. Programs that start daemons close
    them."""
    command = [sys.executable, "-m", "bentofs.mount", "mount", str(shell.mountpoint)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command], cwd=ROOT, env=shell.environment, timeout=60, check=False
    )
    assert done.returncode == 0
    assert mountpoints(shell.mountpoint)
    assert shell("unmount", shell.mountpoint).returncode == 0


def test_mountpoint_through_a_link(shell: Shell, tmp_path: Path) -> None:
    link = tmp_path / "a link"
    link.symlink_to(shell.mountpoint)
    assert shell("mount", f"{link}/").returncode == 0
    assert (link / "README.txt").is_file()
    done = shell("unmount", link)
    assert (done.returncode, done.stderr) == (0, "")
    assert not mountpoints(shell.mountpoint)


def test_a_working_directory_that_has_gone(shell: Shell, tmp_path: Path) -> None:
    """A deleted working directory matters only to relative paths."""
    gone = tmp_path / "gone"
    script = f'mkdir "{gone}"; cd "{gone}"; rmdir "{gone}"; exec "$@"'
    environment = {**shell.environment, "PYTHONPATH": str(ROOT)}
    for arguments, status in ((["list"], 0), (["list", "--store", "models"], 1), (["mount", "mnt"], 1)):
        command = ["sh", "-c", script, "sh", sys.executable, "-m", "bentofs.mount", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        told = "bentofs: the working directory was deleted: change to another one\n" if status else ""
        assert (done.returncode, done.stderr) == (status, told)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a \tb", "a\\040b", "-a", os.fsdecode(b"a\xff")])
def test_mountpoint_with_an_odd_name(shell: Shell, tmp_path: Path, name: str) -> None:
    mountpoint = tmp_path / "odd" / name
    mountpoint.mkdir(parents=True)
    try:
        assert shell("mount", mountpoint, XDG_STATE_HOME=str(tmp_path / "state" / name)).returncode == 0
        again = shell("mount", mountpoint)
        assert (again.returncode, "is mounted at" in again.stderr) == (1, True)
        assert shell("unmount", mountpoint).returncode == 0
    finally:
        if os.path.ismount(mountpoint):
            unmount_lazily(mountpoint)


@pytest.mark.parametrize(
    "arguments",
    [("mount", "mnt", "--settle", "-1"), ("mount", "mnt", "--max-members", "0"), ("imports", "--limit", str(1 << 63))],
)
def test_numbers_that_make_no_sense(shell: Shell, arguments: tuple[str, ...]) -> None:
    done = shell(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not in the range" in done.stderr


def test_a_user_without_a_home(shell: Shell, tmp_path: Path) -> None:
    """Without a home directory, no directory named ~ is made in the working directory. A container that runs as a
    numeric user has no home."""
    (tmp_path / "work").mkdir()
    script = """
import os, pwd, sys
def unknown(_uid):
    raise KeyError
pwd.getpwuid = unknown
from bentofs.mount.__main__ import main
main()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in (*home_of(tmp_path), "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    for arguments, status in (
        (["list"], 3),
        (["import", "x.zip"], 3),
        (["list", "--store", str(shell.store)], 0),
        (["verify", "--store", str(shell.store)], 1),
        (["export", "iris", "../iris.zip", "--store", str(shell.store)], 0),
        (["import", "../iris.zip", "--store", str(shell.store)], 0),
        (["mount", str(shell.mountpoint), "--store", str(shell.store)], 1),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done
        # Data that can be computed again is not kept then. For data that cannot, the command fails.
        assert arguments[0] == "list" or not status or "you have no home directory: " in done.stderr
        assert status or arguments[0] == "list" or "bentofs: no index is kept: you have no home" in done.stderr
    assert os.listdir(tmp_path / "work") == []


def test_no_place_for_the_state(shell: Shell, tmp_path: Path) -> None:
    """One sentence says so, and nothing is left mounted."""
    (tmp_path / "file").touch()
    assert "file" in shell.refuses("mount", shell.mountpoint, XDG_STATE_HOME=str(tmp_path / "file"))
    assert not mountpoints(shell.mountpoint)


def test_formats(shell: Shell) -> None:
    assert shell("mount", shell.mountpoint, "--formats", "zip,tar.gz").returncode == 0
    names = sorted(os.listdir(shell.mountpoint / "models/iris/v1"))
    assert names == [
        "SHA256SUMS",
        "files",
        "iris-v1.tar.gz",
        "iris-v1.tar.gz.sha256",
        "iris-v1.zip",
        "iris-v1.zip.sha256",
    ]
    assert sorted(os.listdir(shell.mountpoint / "by-format")) == ["folder", "tar.gz", "zip"]
    shell("unmount", shell.mountpoint)
    done = shell("mount", shell.mountpoint, "--formats", "rar")
    assert done.returncode == 2
    assert "rar" in done.stderr
    assert "tar.gz" in done.stderr


def test_control_c_in_the_foreground(shell: Shell) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "bentofs.mount", "mount", str(shell.mountpoint), "--foreground"],
        cwd=ROOT,
        env=shell.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: mountpoints(shell.mountpoint), 20, "mounted")
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert not mountpoints(shell.mountpoint)
    assert "Traceback" not in log


def test_reasons_not_to_mount(shell: Shell, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert re.search(r"missing is not there: make it with `mkdir", shell.refuses("mount", missing))
    file = tmp_path / "file"
    file.touch()
    assert "is not a directory" in shell.refuses("mount", file)
    full = tmp_path / "full"
    (full / "x").mkdir(parents=True)
    assert "is not empty" in shell.refuses("mount", full)
    inside = shell.store / "inside"
    inside.mkdir()
    assert "lies inside the store" in shell.refuses("mount", inside)
    inside.rmdir()
    assert "no model store at" in shell.refuses("mount", shell.mountpoint, "--store", missing, status=3)
    libfuse2 = ("--engine", "libfuse2")
    missing_library = shell.refuses("mount", shell.mountpoint, *libfuse2, FUSE_LIBRARY_PATH="/nonexistent")
    assert "libfuse 2 is not installed" in missing_library
    assert not mountpoints(shell.mountpoint)


def test_no_device(shell: Shell) -> None:
    """A container was not given /dev/fuse."""
    become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        [
            *("unshare", "--mount", *become_root, "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh"),
            *(sys.executable, "-m", "bentofs.mount", "mount", shell.mountpoint),
        ],
        cwd=ROOT,
        env=shell.environment,
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"bentofs: /dev/fuse is not there: load .* --cap-add SYS_ADMIN\n", done.stderr), done.stderr


def test_interrupted_while_the_mount_comes_up(shell: Shell) -> None:
    """No mount comes up later, behind the user's back."""
    process = subprocess.Popen(
        # Tests that run in the background ignore Ctrl-C.
        ["env", "--default-signal=INT", sys.executable, "-m", "bentofs.mount", "mount", str(shell.mountpoint)],
        cwd=ROOT,
        env=shell.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ended(process):
        (daemon,) = wait_until(lambda: daemons(shell.mountpoint), 20, "the daemon begins", interval=0.001)
        try:
            os.kill(daemon, signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=20)
        finally:
            left = daemons(shell.mountpoint)
            for one in left:
                os.kill(one, signal.SIGKILL)
    assert (process.returncode, stdout, stderr.strip()) == (130, "", "bentofs: interrupted")
    assert not left
    assert not mountpoints(shell.mountpoint)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_ended_while_the_mount_comes_up(shell: Shell, number: signal.Signals) -> None:
    """No mount comes up later, behind the user's back. `timeout` or a closed terminal ends the command."""
    command = ["env", "--default-signal=HUP", sys.executable, "-m", "bentofs.mount", "mount", str(shell.mountpoint)]
    process = subprocess.Popen(command, cwd=ROOT, env=shell.environment)
    with ended(process):
        (daemon,) = wait_until(lambda: daemons(shell.mountpoint), 20, "the daemon begins", interval=0.001)
        os.kill(daemon, signal.SIGSTOP)
        process.send_signal(number)
        assert process.wait(20) == -number
        os.kill(daemon, signal.SIGCONT)
        wait_until(lambda: not daemons(shell.mountpoint), 20, "the daemon ends")
    assert not mountpoints(shell.mountpoint)
    (log,) = Path(shell.environment["XDG_STATE_HOME"]).glob("bentofs/*.log")
    assert "was ended before" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_interrupted_while_it_is_loaded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupts(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, *_: object) -> None:
            if fullname == "bentofs.mount.cli.main":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "meta_path", [Interrupts(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "bentofs.mount.cli.main", raising=False)
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 130
    assert capsys.readouterr().err == "bentofs: interrupted\n"


def test_mounted_already(shell: Shell) -> None:
    assert shell("mount", shell.mountpoint).returncode == 0
    assert "mounted at" in shell.refuses("mount", shell.mountpoint)
    (daemon,) = daemons(shell.mountpoint)
    os.kill(daemon, signal.SIGSTOP)  # looking at the mount itself would block for ever
    time.sleep(1.1)  # until the kernel's cached attributes expire
    assert "mounted at" in shell.refuses("mount", shell.mountpoint)
    os.kill(daemon, signal.SIGCONT)
    assert shell("unmount", shell.mountpoint).returncode == 0


def test_unmounting_what_is_in_use_or_not_mounted(shell: Shell) -> None:
    assert "nothing is mounted at" in shell.refuses("unmount", shell.mountpoint)
    assert shell("mount", shell.mountpoint).returncode == 0
    held = os.open(shell.mountpoint / "README.txt", os.O_RDONLY)
    assert "in use" in shell.refuses("unmount", shell.mountpoint)
    assert os.read(held, 1)
    assert shell("unmount", "--lazy", shell.mountpoint).returncode == 0
    os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)  # drop the kernel's cached pages
    with pytest.raises(OSError, match="not connected"):
        os.pread(held, 1, 0)
    with contextlib.suppress(OSError):  # with libfuse 2, every close asks the daemon
        os.close(held)
    assert not daemons(shell.mountpoint)


def test_what_another_program_mounted_is_left_alone(shell: Shell) -> None:
    run("bindfs", "--no-allow-other", shell.store, shell.mountpoint)
    try:
        assert "not of bentofs, but of type fuse" in shell.refuses("unmount", shell.mountpoint)
        assert "not of bentofs, but of type fuse" in shell.refuses("unmount", "--lazy", shell.mountpoint)
        assert "mounted at" in shell.refuses("mount", shell.mountpoint)
        assert os.listdir(shell.mountpoint) == ["iris"]
    finally:
        run("fusermount", "-u", shell.mountpoint)


def test_store_with_commas_and_spaces_is_no_mount_option(shell: Shell, tmp_path: Path) -> None:
    store = tmp_path / "models,allow_other,suid\\,dev x"
    make_model(store, "m:v1", {"w": b"w"})
    assert shell("mount", shell.mountpoint, "--store", store).returncode == 0
    line = next(
        line
        for line in Path("/proc/mounts").read_text(errors="surrogateescape").splitlines()
        if str(shell.mountpoint) in line
    )
    options = line.split(" ")[3].split(",")
    assert "nosuid" in options
    assert "nodev" in options
    assert "allow_other" not in options
    assert (shell.mountpoint / "models/m/v1/files/w").read_bytes() == b"w"


def test_allow_other(shell: Shell) -> None:
    """An ordinary user needs a line in fuse.conf, and is told so."""
    done = shell("mount", shell.mountpoint, "--allow-other")
    configuration = Path("/etc/fuse.conf")
    allowed = configuration.exists() and "user_allow_other" in configuration.read_text().splitlines()
    if os.geteuid() != 0 and not allowed:
        assert (done.returncode, done.stderr) == (
            1,
            "bentofs: only root may use --allow-other here: add the line user_allow_other to /etc/fuse.conf\n",
        )
        return
    assert done.returncode == 0, done.stderr
    line = next(
        line
        for line in Path("/proc/mounts").read_text(errors="surrogateescape").splitlines()
        if str(shell.mountpoint) in line
    )
    assert "allow_other" in line.split(" ")[3].split(",")
    assert shell("unmount", shell.mountpoint).returncode == 0


def test_list(shell: Shell) -> None:
    models = json.loads(shell("list", "--json").stdout)
    yaml_size = (shell.store / "iris/v1/model.yaml").stat().st_size
    assert models[0] == {
        "tag": "iris:v1",
        "size": 1001 + yaml_size,
        "files": 3,
        "module": models[0]["module"],
        "creation_time": "2026-01-01T00:00:00+00:00",
        "labels": {},
    }
    assert [model["tag"] for model in models] == ["iris:v1", "iris:v2"]
    make_model(shell.store, f"{'n' * 63}:{'v' * 63}", {})
    table = shell("list", "--store", shell.store).stdout
    assert f"{'n' * 63}:{'v' * 63} " in table
    assert re.search(r"^iris:v1 .* 3 .*2026-01-01 00:00:00", table, re.MULTILINE)


def test_verify_goes_on_when_a_model_is_deleted_meanwhile(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in home_of(tmp_path).items():
        monkeypatch.setenv(name, value)

    def verify_model_after_a_deletion(store: ModelStore, *arguments: Any, **options: Any) -> VerifyReport:
        shutil.rmtree(shell.store / "iris" / "v1", ignore_errors=True)
        return verify_model(store, *arguments, **options)

    monkeypatch.setattr("bentofs.mount.cli.inspect.verify_model", verify_model_after_a_deletion)
    done = CliRunner().invoke(verify_command)
    assert "iris:v2: recorded for the next time" in done.output
    assert str(done.exception) == "of 2 models, 1 could not be read whole"


def test_imports_shows_names_as_they_are(shell: Shell) -> None:
    """Text between two colons is not replaced by an emoji."""
    assert shell("import", "/nowhere/iris:100:bug:.zip").returncode == 3
    assert "/nowhere/iris:100:bug:.zip " in shell("imports").stdout


def test_imports_of_another_user(shell: Shell) -> None:
    """An unreadable record does not look like an empty one."""
    area = shell.store.parent / f".{shell.store.name}.bentofs"
    area.mkdir()
    (area / "receipts.sqlite").touch()
    if os.geteuid() == 0:
        os.chown(area, NOBODY, NOBODY)
    else:
        area.chmod(0o500)
    done = shell("imports", "--json")
    reason, sentence = done.stderr.splitlines()
    assert (done.returncode, json.loads(done.stdout)) == (1, {"error": sentence.removeprefix("bentofs: "), "status": 1})
    assert reason.startswith("bentofs: no record of imports is kept: ")
    assert re.fullmatch(r"bentofs: the record of imports .*receipts\.sqlite cannot be read", sentence)


def test_imports_of_a_store_on_a_medium_that_cannot_be_written(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no archive")
    assert shell("import", tmp_path / "x").returncode == 5
    script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; shift; exec "$@"'
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [
            *alone,
            "sh",
            "-ec",
            script,
            "sh",
            shell.store.parent,
            sys.executable,
            "-m",
            "bentofs.mount",
            "imports",
            "--json",
        ],
        env=shell.environment,
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["state"] == "refused"


def test_verify(shell: Shell) -> None:
    first = shell("verify")
    assert first.returncode == 0
    assert first.stdout.count("recorded for the next time") == 2
    assert shell("verify", "iris:v1", "iris").stdout.count("the same as recorded") == 2
    path = shell.store / "iris/v1/model.pkl"
    stamp = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(stamp, stamp))
    done = shell("verify")
    assert done.returncode == 5
    assert "  differs: model.pkl" in done.stdout.splitlines()
    assert "of 2 models, 1 differ" in done.stderr
    assert shell("verify", "iris:v2").returncode == 0
    assert shell("verify", "--accept").returncode == 0
    assert shell("verify").stdout.count("the same as recorded") == 2
    assert "nothing" in shell.refuses("verify", "nothing:v1", status=3)
