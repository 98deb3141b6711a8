"""The fixture of the tests of the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import make_model, mountpoints, unmount_lazily
from tests.mount.cli.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    make_model(
        shell.store, "iris:v1", {"model.pkl": b"x" * 1000, "a/b": b"y"}, creation_time="2026-01-01T00:00:00+00:00"
    )
    make_model(shell.store, "iris:v2", {"model.pkl": b"z" * 2000})
    yield shell
    if mountpoints(shell.mountpoint):
        unmount_lazily(shell.mountpoint)
