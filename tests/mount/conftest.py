"""Fixtures for mounts that get stuck."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, ended, make_model, mountpoints, unmount_lazily, wait_until
from tests.slow_disk import STUCK


@pytest.fixture
def stuck_store(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A store on a disk where reading `stuck` files hangs while a gate file exists."""
    below, shown, gate = tmp_path / "disk", tmp_path / "disk-mount", tmp_path / "gate"
    below.mkdir()
    shown.mkdir()
    gate.touch()
    for number in range(STUCK):
        make_model(below, f"stuck{number:02}:v1", {"stuck.bin": bytes([number]) * 300_000})
    make_model(below, "fast:v1", {"w.bin": os.urandom(3_000_000)})
    command = [sys.executable, "-m", "tests.slow_disk", str(below), str(shown), str(gate)]
    with ended(subprocess.Popen(command, cwd=ROOT)):
        wait_until(lambda: mountpoints(shown), 20, "the slow disk is mounted")
        try:
            yield shown, gate
        finally:
            gate.unlink(missing_ok=True)
            unmount_lazily(shown)
