"""The store's changes to the disk."""

import os
from pathlib import Path

import pytest

from bentofs.store.util.fs import remove_tree


def test_what_somebody_else_removes_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced model may still be removed in the background while its session ends and removes it, too."""
    for path in ("a", "b/c", "b/d", "e"):
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(b"")
    real = os.unlink

    def too_late(name: str, *, dir_fd: int | None = None) -> None:
        real(name, dir_fd=dir_fd)
        raise FileNotFoundError(name)

    monkeypatch.setattr("bentofs.store.util.fs.os.unlink", too_late)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []
