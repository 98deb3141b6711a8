"""A fatal signal ends at once a program that waits for a slow answer. No other signal does."""

import functools
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Mounted, ended, run
from tests.waiting import wait_until_hanging

# The program stats a file whose size must be measured first, on a stuck disk. It prints the signals caught meanwhile.
_PROGRAM = """
import os, signal, sys, threading
def handler(number, frame):
    print("caught", flush=True)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
for number in (signal.SIGINT, signal.SIGURG):
    signal.signal(number, handler)
print("begun", flush=True)
try:
    os.stat(sys.argv[1])
    print("answered", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
_SOON = 10  # seconds; otherwise it would wait until the gate opens


@pytest.fixture
def slow(stuck_store: tuple[Path, Path], mounted: Callable[..., Mounted]) -> tuple[Mounted, Path, Path]:
    """A mount, an archive of it whose measurement never ends, and the gate that holds it up."""
    store, gate = stuck_store
    mount = mounted(store, options=["--engine", "kernel"])
    return mount, mount.archive("stuck07:v1", ".tar.gz"), gate


def test_ctrl_c_ends_who_waits(slow: tuple[Mounted, Path, Path]) -> None:
    mount, path, gate = slow
    for command in (["stat", str(path)], ["cat", str(path)], ["ls", "-l", str(path.parent)]):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            # Where the tests run in the background, SIGINT is ignored, also by the programs that they start.
            heeds = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
            with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=heeds)) as program:
                wait_until_hanging(program.pid)
                assert program.poll() is None
                program.send_signal(number)
                assert program.wait(_SOON) == -number
    assert "fast" in run("ls", "-l", mount.path / "models", seconds=20).stdout
    gate.unlink()
    assert len(path.read_bytes()) == path.stat().st_size


def test_a_handler_runs_and_other_signals_change_nothing(slow: tuple[Mounted, Path, Path]) -> None:
    _, path, gate = slow
    for ending, told in ((signal.SIGINT, "interrupted"), (None, "answered")):
        command = [sys.executable, "-c", _PROGRAM, str(path)]
        with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "begun\n"
            wait_until_hanging(program.pid)
            program.send_signal(signal.SIGURG)  # like Go's scheduler, all the time
            time.sleep(0.3)  # let the signal do what it must not do
            assert program.poll() is None
            if ending:
                program.send_signal(ending)
            else:
                gate.unlink()
            lines, _ = program.communicate(timeout=_SOON)
            assert lines.splitlines()[-1] == told
            assert program.returncode == 0


def test_a_reader_without_page_cache_ends(stuck_store: tuple[Path, Path], mounted: Callable[..., Mounted]) -> None:
    store, _ = stuck_store
    mount = mounted(store, options=["--engine", "kernel", "--compression", "never"])
    command = ["dd", f"if={mount.archive('stuck01:v1', '.tar')}", "of=/dev/null", "bs=256k", "iflag=direct", "skip=1"]
    with ended(subprocess.Popen(command, stderr=subprocess.DEVNULL)) as program:
        wait_until_hanging(program.pid)
        assert program.poll() is None
        program.kill()
        assert program.wait(_SOON) == -signal.SIGKILL
