"""Fixtures for disks that fail."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Make a file system of 80 MiB with a store in it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=80m,nr_inodes=3000,mode=755", "bentofs-test", disk)
    try:
        (disk / "bentoml" / "models").mkdir(parents=True)
        yield disk
    finally:
        run("umount", "-l", disk)
