"""Fixtures for tests that other users take part in."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import run, unmount_lazily


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own ones may not be."""
    assert os.geteuid() == 0, "these tests need root: they become other users, and mount file systems"
    path = Path(tempfile.mkdtemp(prefix="bentofs-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        unmount_lazily(path / "base" / "mnt")
        run("rm", "-rf", "--one-file-system", path)


@pytest.fixture
def shared_store(shared: Path) -> Path:
    folder = shared / "bentoml" / "models"
    folder.mkdir(parents=True)
    return folder
