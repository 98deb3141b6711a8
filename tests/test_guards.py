"""The guards of other tests must be able to fail: the log check, a mount's end, forgotten mounts."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.harness import ROOT, Mounted, make_model, serious_lines, wait_until

NESTED = """
import logging
import pytest

def test_quiet():
    logging.getLogger("store").info("nothing serious")

def test_unexpected():
    logging.getLogger("store").warning("a surprise")

def test_expected(expect_log):
    expect_log("a surpri[sz]e")
    logging.getLogger("store").warning("a surprise")

@pytest.mark.expect_log("a surprise")
def test_marked():
    logging.getLogger("store").error("a surprise")

def test_expected_in_vain(expect_log):
    expect_log("a surprise")

def test_counted(expect_log):
    expect_log("a surprise", times=1)
    logging.getLogger("store").warning("a surprise")
    logging.getLogger("store").warning("a surprise")

@pytest.fixture
def noisy():
    yield
    logging.getLogger("store").warning("at the end")

def test_teardown(noisy):
    pass
"""


def test_log_check(tmp_path: Path) -> None:
    (tmp_path / "test_nested.py").write_text(NESTED)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.logcheck",
            "-p",
            "no:cacheprovider",
            "-rA",
            "--strict-markers",
            ".",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    outcomes = set(re.findall(r"^(PASSED|FAILED|ERROR) \S+::test_(\w+)", done.stdout, re.MULTILINE))
    assert {name for outcome, name in outcomes if outcome != "PASSED"} == {
        "unexpected",
        "expected_in_vain",
        "counted",
        "teardown",
    }, done.stdout
    assert {"quiet", "expected", "marked"} <= {name for outcome, name in outcomes if outcome == "PASSED"}


def test_serious_lines() -> None:
    log = """\
2026-11-22 15:43:23,123 INFO mount: fine
2026-11-22 15:43:23,123 WARNING bentofs.store: odd
2026-11-22 15:43:23,123 ERROR bentofs.mount: failed
Traceback (most recent call last):
ValueError: why
2026-11-22 15:43:23,123 DEBUG mount: fine
fuse: bad mount point
"""
    assert serious_lines(log) == [
        "2026-11-22 15:43:23,123 WARNING bentofs.store: odd",
        "2026-11-22 15:43:23,123 ERROR bentofs.mount: failed\nTraceback (most recent call last):\nValueError: why",
        "fuse: bad mount point",
    ]


def test_unexpected_warning_of_a_daemon_is_noticed(store: Path, tmp_path: Path) -> None:
    make_model(store, "good:v1")
    (store / "stray.txt").touch()
    daemon = Mounted(store, tmp_path / "mount")
    daemon.start()
    assert os.listdir(daemon.path / "models") == ["good"]
    with pytest.raises(AssertionError, match=r"unexpected in the log: .*stray\.txt"):
        daemon.stop()


def test_expected_warning_that_never_comes_is_noticed(store: Path, tmp_path: Path) -> None:
    daemon = Mounted(store, tmp_path / "mount")
    daemon.start()
    daemon.expect_log("nothing says this")
    with pytest.raises(AssertionError, match="never came"):
        daemon.stop()


def test_crash_of_a_daemon_is_noticed(store: Path, tmp_path: Path) -> None:
    daemon = Mounted(store, tmp_path / "mount", own_process=True)
    daemon.start()
    daemon.process.kill()
    daemon.process.wait(10)
    with pytest.raises(AssertionError, match="exited with -9"):
        daemon.stop()
    assert harness.mountpoints(tmp_path) == []


def test_forgotten_mount_is_noticed_and_removed(store: Path, tmp_path: Path) -> None:
    daemon = Mounted(store, tmp_path / "mount with a space")
    daemon.start()
    assert harness.forgotten_mounts(tmp_path) == []
    harness._living.discard(daemon)
    assert harness.forgotten_mounts(tmp_path) == [daemon.path]
    assert harness.mountpoints(tmp_path) == []
    wait_until(lambda: daemon.process.poll() is not None, 20, "the daemon ends once it is unmounted")
    daemon.kill()


def test_wedged_daemon_is_killed(store: Path, tmp_path: Path) -> None:
    """A daemon that does not answer must not hang the tests for ever. The time of its start does not count."""
    slowly = ["sh", "-c", 'sleep 1.2 && exec "$@"', "sh"]
    daemon = Mounted(store, tmp_path / "mount", prefix=slowly, limit=1.0)
    daemon.start()
    daemon.process.send_signal(signal.SIGSTOP)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - see below
        os.listdir(daemon.path / "models" / "not-asked-before")
    # ENOENT, if the question came so late that it was already unmounted.
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT)
    daemon.kill()
    assert harness.mountpoints(tmp_path) == []


def test_a_fork_is_as_a_process_of_its_own(store: Path, tmp_path: Path) -> None:
    with Mounted(store, tmp_path / "fork") as fork, Mounted(store, tmp_path / "own", own_process=True) as own:
        wait_until(lambda: _told_of(fork) == _told_of(own), 20, f"{_told_of(fork)} is {_told_of(own)}")
        assert b"tests.forked" not in Path(f"/proc/{fork.pid}/cmdline").read_bytes()
        assert Path(f"/proc/{fork.pid}/exe").samefile(sys.executable)
        with pytest.raises(subprocess.TimeoutExpired):
            fork.process.wait(0.01)
        pid = fork.pid
    assert not Path(f"/proc/{pid}").exists(), "a zombie"


def _told_of(mount: Mounted) -> dict[str, object]:
    """Return what the system tells of a daemon, without what differs between any two."""
    process = Path(f"/proc/{mount.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    own = ("PPid", "Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "CapEff", "Threads")
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return {
        **{name: status[name] for name in own},
        "group, session, terminal, niceness": [*fields[2:5], fields[16]],
        "arguments": (process / "cmdline")
        .read_bytes()
        .rstrip(b"\0")
        .replace(os.fsencode(mount.base), b"")
        .split(b"\0"),
        "directory": os.readlink(process / "cwd"),
        "limits": (process / "limits").read_text(),
        "descriptors": sorted(os.listdir(process / "fd")),
    }
