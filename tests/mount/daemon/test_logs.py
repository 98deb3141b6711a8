"""The log of a daemon: one line an event, levels, its place, the journal, and the stacks of all threads."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.mount.daemon.logs import FORMAT, OneLine, RecentLog
from tests.harness import ROOT, Mounted, make_model, run, unmount_lazily, wait_until
from tests.incoming import cp, imports, made_tar

Mount = Callable[..., Mounted]

_JOURNALED = """
import logging, os, sys
from bentofs.mount.daemon.logs import start_logging
start_logging("info", None, takes_output=False)
log = logging.getLogger("bentofs.test")
log.debug("unseen")
log.info("hello")
log.warning("careful")
logging.getLogger("botocore").info("unseen, too")
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("failed")
"""


def test_the_journal_gets_priorities_and_an_event_is_a_line() -> None:
    """The journal's end of standard error is a socket, as under systemd. Without it, lines have a time and a level."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        look = os.fstat(theirs.fileno())
        for stream, is_journal in ((f"{look.st_dev}:{look.st_ino}", True), ("1:1", False), ("", False)):
            environment = {**os.environ, "JOURNAL_STREAM": stream, "PYTHONPATH": f"{ROOT}/.src"}
            command = [sys.executable, "-c", _JOURNALED]
            subprocess.run(command, stderr=theirs.fileno(), env=environment, timeout=30, check=True)
            lines = ours.recv(1 << 16).decode().splitlines()
            assert len(lines) == 3, lines
            assert "Traceback (most recent call last):\\n  File" in lines[2]
            assert "ValueError: two\\nlines" in lines[2]
            if is_journal:
                assert lines[:2] == ["<6>bentofs.test: hello", "<4>bentofs.test: careful"]
                assert lines[2].startswith("<3>bentofs.test: failed")
            else:
                assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:,]{12} INFO bentofs\.test: hello", lines[0])


def test_a_log_file_its_level_and_the_stacks_of_all_threads(tmp_path: Path, store: Path) -> None:
    """`--log-file` and `--log-level` hold in the background, too. SIGUSR1 writes stacks and ends nothing."""
    make_model(store, "m:v1", {"w": b"w"})
    log, mountpoint = tmp_path / "logs" / "a log", tmp_path / "mnt"
    log.parent.mkdir()
    mountpoint.mkdir()
    command = [sys.executable, "-m", "bentofs.mount", "mount", str(mountpoint), "--store", str(store)]
    below = subprocess.run(
        [*command, "--log-file", mountpoint / "log"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert below.returncode == 2
    assert "lies below the mountpoint" in below.stderr
    try:
        said = run(*command, "--log-file", os.path.relpath(log, ROOT), "--log-level", "warning", cwd=ROOT).stdout
        assert f"log: {log}\n" in said
        assert log.read_text() == "", "being mounted is no warning"
        assert cp(_no_archive(tmp_path), mountpoint / "incoming").returncode == 1
        assert re.fullmatch(r".* WARNING \S+: bad\.tar was not imported: .*\n", log.read_text())
        pid = _daemon_of(mountpoint)
        os.kill(pid, signal.SIGUSR1)
        stacks = wait_until(lambda: log.read_text() if "session.py" in log.read_text() else "", 10, "stacks")
        for function in ("in run", "in serve", "in _watch"):  # of the main thread, a worker, the watcher
            assert function in stacks, stacks
        assert (mountpoint / "README.txt").read_bytes()
    finally:
        unmount_lazily(mountpoint)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "the daemon's end")


def test_one_request_id_joins_note_log_and_record(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    mount.expect_log("was not imported", times=2)
    bad = _no_archive(tmp_path)
    for name in ("bad.tar", "again.tar"):
        assert cp(bad, mount.path / "incoming" / name).returncode == 1
    run("cp", made_tar(tmp_path, "m:v1"), mount.path / "incoming")
    told = imports(mount)
    assert [each["state"] for each in told] == ["refused", "refused", "imported"]
    assert len({each["request"] for each in told}) == 3
    for each in told:
        assert re.fullmatch(r"[0-9a-f]{6}-\d+", each["request"])
        assert re.search(rf"{each['file']}.*\(request {each['request']}\)$", mount.log(), re.MULTILINE)
        if each["state"] == "refused":
            note = (mount.path / f"incoming/{each['file']}.error").read_text()
            assert note == f"{each['file']} was not imported: {each['error']} (request {each['request']})\n"


def test_the_recent_log_is_bounded() -> None:
    recent = RecentLog()
    for number in range(3000):
        recent.handle(logging.LogRecord("n", logging.INFO, "p", 1, "record %d %s", (number, "x" * 100), None))
    recent.handle(logging.LogRecord("n", logging.ERROR, "p", 1, "y" * 100_000, (), None))
    assert recent.tail().endswith(b"yyy\n")
    recent.handle(logging.LogRecord("n", logging.WARNING, "p", 1, "a\nb\r\x85c", (), None))
    tail = recent.tail()
    assert len(tail) <= 64 << 10
    assert tail.count(b"\n") == len(tail.splitlines())
    assert [(each.level, each.message[:9]) for each in recent.problems()] == [
        ("ERROR", "yyyyyyyyy"),
        ("WARNING", r"a\nb\n\nc"),
    ]
    assert recent.counts == {"WARNING": 1, "ERROR": 1}


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\u2028b", "\n", ""])
def test_a_line_is_a_line(text: str) -> None:
    line = OneLine(FORMAT).format(logging.LogRecord("n", logging.INFO, "p", 1, text, (), None))
    assert len(line.splitlines()) == 1


def _no_archive(base: Path) -> Path:
    bad = base / "bad.tar"
    bad.write_bytes(b"no archive" * 100)
    return bad


def _daemon_of(mountpoint: Path) -> int:
    """Return the daemon's pid: no other process has the mountpoint among its arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(mountpoint).encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    assert len(found) == 1, found
    return found[0]
