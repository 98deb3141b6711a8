"""`bentofs unmount`: what it waits for, what it refuses, and whom it names."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bentofs.mount.daemon.holders import describe, holders_of
from tests.harness import ROOT, ended, make_model, mountpoints, wait_until
from tests.incoming import made_tar
from tests.mount.cli.shell import Shell, daemons


def test_running_imports_are_waited_for(shell: Shell, tmp_path: Path) -> None:
    content = made_tar(tmp_path, "new:v1", {"w.bin": os.urandom(100_000)}).read_bytes()
    assert shell("mount", shell.mountpoint).returncode == 0
    reading = os.open(shell.mountpoint / "models/iris/v1/iris-v1.tar", os.O_RDONLY)
    sentence = shell.refuses("unmount", shell.mountpoint)
    assert f"(process {os.getpid()}) has open models/iris/v1/iris-v1.tar: end that first, or use" in sentence
    os.close(reading)

    upload = open(shell.mountpoint / "incoming" / "new.tar", "wb")  # noqa: SIM115 - closed below, in the middle
    upload.write(content[:50_000])
    upload.flush()
    sentence = shell.refuses("unmount", shell.mountpoint, "--wait", "0")
    assert f"(process {os.getpid()}) writes incoming/new.tar: end that first, or use `bentofs unmount --for" in sentence
    command = [sys.executable, "-m", "bentofs.mount", "unmount", str(shell.mountpoint)]
    process = subprocess.Popen(command, cwd=ROOT, env=shell.environment, stderr=subprocess.PIPE, text=True)
    with ended(process):
        assert process.stderr is not None
        assert process.stderr.readline().startswith("bentofs: waiting for running imports: ")
        upload.write(content[50_000:])
        upload.close()
        assert (process.wait(60), process.stderr.read()) == (0, "")
    assert not mountpoints(shell.mountpoint)
    assert not daemons(shell.mountpoint)
    assert (shell.store / "new" / "v1" / "model.yaml").is_file()


def test_force_waits_for_nothing(shell: Shell, tmp_path: Path) -> None:
    """The bytes of an upload that have come are kept for the next mount."""
    content = made_tar(tmp_path, "new:v1", {"w.bin": os.urandom(100_000)}).read_bytes()
    assert shell("mount", shell.mountpoint).returncode == 0
    upload = os.open(shell.mountpoint / "incoming" / "new.tar", os.O_WRONLY | os.O_CREAT)
    assert os.write(upload, content[:50_000]) == 50_000
    done = shell("unmount", "--force", shell.mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert not daemons(shell.mountpoint)
    with contextlib.suppress(OSError):
        os.close(upload)
    assert shell("mount", shell.mountpoint).returncode == 0
    with open(shell.mountpoint / "incoming" / "new.tar", "r+b") as again:
        assert again.read() == content[:50_000]
        again.write(content[50_000:])
    assert (shell.mountpoint / "models/new/v1").is_dir()
    assert shell("unmount", shell.mountpoint).returncode == 0


def test_an_import_in_the_background_is_finished(shell: Shell, tmp_path: Path) -> None:
    """A quiet folder is imported though no program waits for it, and no open file keeps the mount busy."""
    files: dict[str | bytes, bytes | int] = {f"part{number}": b"x" * 1000 for number in range(300)}
    folder = make_model(tmp_path / "other", "quiet:v1", files)
    assert shell("mount", shell.mountpoint, "--settle", "0").returncode == 0
    shutil.copytree(folder, shell.mountpoint / "incoming" / "quiet.part")
    (shell.mountpoint / "incoming" / "quiet.part").rename(shell.mountpoint / "incoming" / "quiet")
    wait_until(lambda: "quiet" not in os.listdir(shell.mountpoint / "incoming"), 60, "it is taken", interval=0.001)
    assert shell("unmount", shell.mountpoint).returncode == 0
    assert len(os.listdir(shell.store / "quiet" / "v1")) == 301


def test_who_keeps_a_folder_busy(tmp_path: Path) -> None:
    real = str(tmp_path / "busy")
    os.makedirs(f"{real}/sub")
    Path(f"{real}beside").touch()
    assert holders_of(real) == []
    script = (
        "import sys; open(sys.argv[1]); kept = open(sys.argv[2], 'w'); print('there', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, f"{real}beside", f"{real}/written"]
    process = subprocess.Popen(command, cwd=f"{real}/sub", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with ended(process):
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        (holder,) = holders_of(real)
        assert holder[0::2] == (process.pid, "written")
        assert holder.writes
        assert describe(real, [holder]) == f"{holder.program} (process {process.pid}) writes written"
        (below,) = holders_of(f"{real}/sub")
        assert describe(real, [below]).endswith(f"(process {process.pid}) works in it")


def test_the_end_is_bounded() -> None:
    """A signal ends a daemon though something in it does not answer."""
    script = """
import threading
from bentofs.mount.daemon import ending
from bentofs.mount.daemon.notify import ServiceManager
ending.END_SECONDS = 0.1
ending.End(ServiceManager(), "").begin(by_signal=True)
threading.Event().wait()
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=False).returncode == 0
