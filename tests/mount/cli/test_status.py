"""`bentofs status`: mounts that serve, that do not answer, and whose daemon is dead."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentofs.mount.daemon.ask import Tell, ask_all
from bentofs.mount.daemon.look import MountState, look_at, read_answer
from bentofs.mount.kernel.mount_table import OurMount
from tests.harness import ROOT, Mounted, ended, home_of, make_model, wait_until
from tests.incoming import cp
from tests.mount.kernel.test_ordinary_user import as_ordinary_user
from tests.store.users import NOBODY, folder_of_an_ordinary_user

Mount = Callable[..., Mounted]
_READS_PYTHON = "--inh-caps +dac_read_search --ambient-caps +dac_read_search"  # it may lie in root's home
COMMAND = [sys.executable, "-m", "bentofs.mount", "status"]


def status(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def told(mount: Mounted) -> dict[str, Any]:
    done = status(mount.path, "--json")
    (found,) = json.loads(done.stdout)
    assert done.returncode == (found["state"] != "serving")
    assert found["mountpoint"] == str(mount.path)
    return dict(found)


def test_a_mount_from_its_begin_to_its_death(store: Path, mounted: Mount, tmp_path: Path) -> None:
    make_model(store, "m:v1", {"w": b"w" * 1000})
    mount = mounted(store, own_process=True)
    mount.expect_log("was not imported", times=1)
    mount.archive("m:v1", ".zip").read_bytes()
    (tmp_path / "bad.zip").write_bytes(b"no archive" * 100)
    assert cp(tmp_path / "bad.zip", mount.path / "incoming").returncode == 1
    serving = told(mount)
    assert (serving["state"], serving["pid"], serving["models"]) == ("serving", mount.pid, 1)
    text = status().stdout  # of all mounts
    assert f"{mount.path}\n  store     {store}, 1 model\n  daemon    pid {mount.pid}, bentofs " in text
    assert re.search(r"^  reads     zip \d+ bytes in 1 open$", text, re.MULTILINE), text
    assert "  imports   0 running, 1 refused\n" in text
    assert "  problems  1 warning, 0 errors; the last at " in text

    watched_in_a_terminal(mount)

    os.kill(mount.pid, signal.SIGSTOP)
    try:
        stuck = told(mount)
        assert (stuck["state"], stuck["pid"]) == ("stuck", mount.pid)
        assert stuck["since"][:16] == serving["since"][:16] or stuck["since"] < serving["since"]
        with_advice = status().stdout
        assert f"it does not answer: `kill -USR1 {mount.pid}` writes" in with_advice
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    assert told(mount)["state"] == "serving"

    os.kill(mount.pid, signal.SIGKILL)
    mount.process.wait(10)
    assert f"it has died: mount again, or remove the mount with `bentofs unmount {mount.path}`" in status().stdout
    mount.kill()
    done = status(mount.path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"bentofs: nothing is mounted at {mount.path}: `bentofs status` lists your mounts\n"


def watched_in_a_terminal(mount: Mounted) -> None:
    """Watch a mount. A program that is no terminal is told where else to look."""
    done = status("--watch")
    assert done.returncode == 2
    assert ".bentofs/metrics" in done.stderr
    screen, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "300", "LINES": "50", "TERM": "xterm"}
    process = subprocess.Popen(
        [*COMMAND, mount.path, "--watch"],
        cwd=ROOT,
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with ended(process):
        os.close(terminal)
        os.set_blocking(screen, False)
        seen = b""

        def is_shown() -> bool:
            nonlocal seen
            with contextlib.suppress(OSError):  # nothing is there, or the other end is closed
                seen += os.read(screen, 1 << 16)
            return all(text.encode() in seen for text in (str(mount.path), "serving", "bad.zip was not imported"))

        wait_until(is_shown, 60, "the screen shows the mount")
        process.send_signal(signal.SIGINT)
        # Read on: a terminal that nobody reads would hold the program.
        wait_until(lambda: is_shown() and process.poll() is not None, 60, "it ends")
        assert process.returncode == 130
    os.close(screen)


def test_a_question_without_an_answer_holds_nobody() -> None:
    """Answers of others are whole, however long they are. What was told before a question got stuck is kept."""
    reader, writer = os.pipe()

    def never(tell: Tell) -> None:
        tell(b"begun")
        os.read(reader, 1)

    def fails(_tell: Tell) -> None:
        raise OSError("gone")

    answers = ask_all([never, lambda tell: tell(b"x" * 1_000_000), fails, lambda tell: tell(b"y" * (5 << 20))], 2.0)
    assert answers[:3] == [(b"begun", False), (b"x" * 1_000_000, True), (b"", True)]
    assert len(answers[3][0]) < 5 << 20, "an answer is bounded"
    os.close(reader)
    os.close(writer)
    assert look_at([]) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[" * 100_000,
        b"[]",
        b'{"pid": "1"}',
        b'{"pid": 1, "reads": {"zip": 3}}',
        b'{"pid": 1, "models": 1, "reads": {}, "imports": {"running": 1}}',
    ],
)
def test_root_looks_at_mounts_of_others(content: bytes) -> None:
    """Another user's daemon may answer anything."""
    mount = OurMount("/mnt", "store", 1000, 1000)
    report = read_answer(mount, b'{"pid": 7}\n0\n' + content, ended=True)
    assert (report.state, report.pid, report.status) == (MountState.UNKNOWN, 7, {})


@pytest.mark.root
def test_a_mount_of_another_user() -> None:
    """Root sees a mount that refuses root. Another user is told whose it is."""
    assert os.geteuid() == 0, "only root can become two other users: run the tests as root"
    with folder_of_an_ordinary_user() as home:
        make_model(home / "bentoml" / "models", "m:v1", {"w": b"w"})
        home_of(home)
        (home / "mnt").mkdir()
        for path in home.rglob("*"):
            os.chown(path, NOBODY, NOBODY)
        other = f"setpriv --reuid 1234 --regid 1234 --clear-groups {_READS_PYTHON}"
        looks = f"$bentofs status $0/mnt; ls $0/mnt; {other} $bentofs status $0/mnt; $bentofs unmount $0/mnt"
        done = as_ordinary_user(home, "$bentofs mount mnt --engine kernel", then_as_root=f"({looks})")
    assert done.returncode == 0, done
    assert "bentoml/models, 1 model\n" in done.stdout
    assert "Permission denied" in done.stderr
    assert f"  daemon    it answers user {NOBODY} only\n" in done.stdout
