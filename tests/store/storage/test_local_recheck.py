"""A recheck finds every change that a walk finds."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.catalog import looks
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.model.tag import Tag
from bentofs.store.storage.entries import Entries
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model
from tests.waiting import wait_until_settled

_TAG = Tag("many", "v1")


def _replace(folder: Path) -> None:
    shutil.copytree(folder / "a", folder / "new", copy_function=shutil.copy2)
    shutil.rmtree(folder / "a")
    (folder / "new").rename(folder / "a")


def _rewrite(folder: Path) -> None:
    times = os.stat(folder / "a/1")
    (folder / "a/1").write_bytes(b"x" * 5)
    os.utime(folder / "a/1", ns=(times.st_atime_ns, times.st_mtime_ns))


def _link(folder: Path) -> None:
    (folder / "a/1").rename(folder / "a/b/moved")
    (folder / "a/1").symlink_to("b/moved")


_CHANGES: dict[str, Callable[[Path], object]] = {
    "in place": lambda folder: (folder / "a/b/2").write_bytes(b"other"),
    "same size and mtime": _rewrite,
    "added": lambda folder: (folder / "a/b/new").write_bytes(b""),
    "removed": lambda folder: (folder / "a/1").unlink(),
    "renamed": lambda folder: (folder / "a/1").rename(folder / "a/3"),
    "moved": lambda folder: (folder / "a/1").rename(folder / "a/b/1"),
    "executable": lambda folder: (folder / "a/1").chmod(0o755),
    "directory added": lambda folder: (folder / "a/b/c").mkdir(),
    "empty directory removed": lambda folder: (folder / "a/empty").rmdir(),
    "directory replaced by its copy": _replace,
    "file replaced by a link": _link,
    "at the top": lambda folder: (folder / "top").write_bytes(b"1"),
}


@pytest.fixture
def folder(store: Path) -> Path:
    folder = make_model(store, str(_TAG), {"a/1": b"12345", "a/b/2": b"22222", "a-c": b"x", "z": b""})
    (folder / "a/empty").mkdir()
    wait_until_settled(store)
    return folder


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_a_change_is_found(store: Path, folder: Path, change: Callable[[Path], object]) -> None:
    storage = LocalStorage(str(store))
    entries, _ = storage.walk(_TAG.path)
    assert storage.is_unchanged(_TAG.path, entries)
    change(folder)
    assert not storage.is_unchanged(_TAG.path, entries)


def test_it_leaves_to_a_walk_what_it_cannot_tell(store: Path, folder: Path) -> None:
    """Links lead to places that it does not look at. In a young directory, a new name may leave the same times."""
    storage = LocalStorage(str(store))
    (folder / "a/young").write_bytes(b"")
    os.utime(folder / "a")
    young, _ = storage.walk(_TAG.path)
    wait_until_settled(store)
    settled, _ = storage.walk(_TAG.path)
    assert storage.is_unchanged(_TAG.path, settled)
    assert young == settled
    assert not young.folder_looks
    (folder / "link").symlink_to("a")
    wait_until_settled(store)
    linked, _ = storage.walk(_TAG.path)
    assert not storage.is_unchanged(_TAG.path, linked)
    shutil.rmtree(folder)
    assert not storage.is_unchanged(_TAG.path, settled)


def test_a_look_at_a_model_of_many_files_walks_only_after_a_change(
    store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "_MANY", 1)
    storage = LocalStorage(str(store))
    models = ModelStore(storage)
    first = models.model(_TAG)
    begun = first.look
    walked: list[str] = []
    walk = storage.walk

    def counted(path: str) -> tuple[Entries, int]:
        walked.append(path)
        return walk(path)

    monkeypatch.setattr(storage, "walk", counted)
    assert models.model(_TAG, max_age=0) is first
    assert first.look > begun
    assert not walked
    (folder / "a/1").write_bytes(b"54321")
    second = models.model(_TAG, max_age=0)
    assert second.generation != first.generation
    assert walked
