"""Unlinking on the own mount, here in a directory: who must wait for what."""

import os
import threading
import time
from pathlib import Path

import pytest

from bentofs.mount.kernel.libfuse2.unlinker import Unlinker
from tests.harness import wait_until


def test_a_folder_that_is_locked_keeps_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked directory blocks no other. A slow lookup locks its directory: the kernel allows no unlink there
    meanwhile."""
    for path in ("slow/a", "slow/b", "fast/a", "fast/b"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    slow, gate = os.stat(tmp_path / "slow").st_ino, threading.Event()
    callers: list[int] = []
    unlink = os.unlink

    def wait_and_unlink(name: str, *, dir_fd: int) -> None:
        callers.append(threading.get_native_id())
        if os.fstat(dir_fd).st_ino == slow:
            gate.wait(60)
        assert unlinker.is_caller(threading.get_native_id())
        unlink(name, dir_fd=dir_fd)

    late: list[tuple[str, bool]] = []
    unlinker = Unlinker(str(tmp_path))
    unlinker.begin(lambda path, detached: late.append((path, detached)))
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", wait_and_unlink)
        assert unlinker.detach("/slow/a") is None
        unlinker.detach_soon("/slow/b")
        begun = time.monotonic()
        assert unlinker.detach("/fast/a")
        assert unlinker.detach("/fast/b")
        assert time.monotonic() - begun < 30
        assert not (tmp_path / "fast/a").exists()
        assert len(callers) == 3, "one in each folder at a time"
        gate.set()
        wait_until(lambda: len(late) == 2, 10, "what had to wait is done")
        assert late == [("/slow/a", True), ("/slow/b", True)]
        wait_until(lambda: not any(map(unlinker.is_caller, callers)), 10, "no thread stays")
    unlinker.stop()
