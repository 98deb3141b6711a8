"""Generations: the same object for the same files, another after any change, never a mixture."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import NotFoundError
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model, remove_model
from tests.store.clock import Clock

Looks = Callable[[], ModelStore]
_TAG = Tag("iris", "v1")
_FILES: dict[str | bytes, bytes | int] = {"weights/a": b"aaaa", "weights/b": b"bbbb", "empty/": b"", "top": b"t"}


@pytest.fixture
def folder(store: Path) -> Path:
    return make_model(store, "iris:v1", _FILES, executable=["top"])


def _paths(model: Model) -> list[str]:
    return [entry.path for entry in model.entries]


def test_what_a_model_is(models: Looks, folder: Path) -> None:
    model = models().model(_TAG)
    assert _paths(model) == ["model.yaml", "empty", "top", "weights", "weights/a", "weights/b"]
    assert (model.file_count, model.size) == (4, 9 + (folder / "model.yaml").stat().st_size)
    assert [entry.path for entry in model.entries if entry.executable and not entry.is_folder] == ["top"]
    assert [entry.path for entry in model.entries if entry.is_folder] == ["empty", "weights"]
    assert model.mtime == 1_767_323_045
    assert model.newest_ctime_ns == max(path.stat().st_ctime_ns for path in [folder, *folder.rglob("*")])


def test_the_same_object_while_nothing_changes(store: Path, models: Looks, folder: Path) -> None:
    first = models().model(_TAG)
    assert folder.exists()
    make_model(store, "iris:v2")  # in the same name's directory
    for _ in range(3):
        assert models().model(_TAG) is first
        assert models().model(_TAG, max_age=0) is first
    os.stat(folder / "top")
    (folder / "top").read_bytes()  # atime is no change
    assert models().model(_TAG) is first


def test_two_catalogues_know_of_the_same_generation_by_its_fingerprint(store: Path, folder: Path) -> None:
    one, other = (ModelStore(LocalStorage(str(store))).model(_TAG) for _ in range(2))
    assert one is not other
    assert one.generation == other.generation
    assert one.fingerprint() == other.fingerprint()
    assert folder.exists()


def _edit_in_place(folder: Path) -> None:
    path = folder / "weights" / "a"
    look = path.stat()
    path.write_bytes(b"AAAA")
    os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))


def _replace_file(folder: Path) -> None:
    path = folder / "weights" / "a"
    look = path.stat()
    (folder / "weights" / "new").write_bytes(b"AAAA")
    os.utime(folder / "weights" / "new", ns=(look.st_atime_ns, look.st_mtime_ns))
    (folder / "weights" / "new").replace(path)


def _replace_model(folder: Path) -> None:
    look = folder.stat()
    copy = folder.parent.parent.parent / "copy"
    shutil.copytree(folder, copy)
    os.utime(copy, ns=(look.st_atime_ns, look.st_mtime_ns))
    shutil.rmtree(folder)
    copy.rename(folder)


def _save_again(folder: Path) -> None:
    store = folder.parent.parent
    remove_model(store, "iris:v1")
    make_model(store, "iris:v1", _FILES, creation_time="2026-01-02T03:04:06+00:00")


def _edit_model_yaml(folder: Path) -> None:
    path = folder / "model.yaml"
    path.write_bytes(path.read_bytes().replace(b"03:04:05", b"03:04:06"))
    os.utime(path, (1, 1))


def _top_level(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Wrap a change in the version's directory itself. It removes the mark of a finished save; the copying tool sets it
    again."""

    def changed(folder: Path) -> None:
        change(folder)
        os.utime(folder, (1, 1))

    return changed


_CHANGES: dict[str, Callable[[Path], object]] = {
    "edit in place": _edit_in_place,
    "truncate": lambda folder: os.truncate(folder / "weights" / "a", 2),
    "append": lambda folder: (folder / "weights" / "a").write_bytes(b"aaaa+"),
    "replace a file": _replace_file,
    "add a file": lambda folder: (folder / "weights" / "c").write_bytes(b"c"),
    "add an empty file": lambda folder: (folder / "weights" / "c").write_bytes(b""),
    "add an empty folder": lambda folder: (folder / "weights" / "new").mkdir(),
    "delete a file": lambda folder: (folder / "weights" / "a").unlink(),
    "rename a file": lambda folder: (folder / "weights" / "a").rename(folder / "weights" / "z"),
    "make executable": lambda folder: (folder / "weights" / "a").chmod(0o755),
    "add at the top": _top_level(lambda folder: (folder / "new").write_bytes(b"new")),
    "delete at the top": _top_level(lambda folder: (folder / "top").unlink()),
    "rename at the top": _top_level(lambda folder: (folder / "empty").rename(folder / "void")),
    "replace the model by a copy": _replace_model,
    "save again": _save_again,
    "edit model.yaml": _edit_model_yaml,
}


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_another_object_after_a_change(models: Looks, folder: Path, change: Callable[[Path], object]) -> None:
    first = models().model(_TAG)
    change(folder)
    second = models().model(_TAG)
    assert second is not first
    assert second.generation != first.generation
    assert second.fingerprint() != first.fingerprint()
    assert models().model(_TAG) is second


@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_a_change_just_after_a_look_is_seen_by_a_look_now(
    models: Looks, folder: Path, change: Callable[[Path], object]
) -> None:
    catalogue = models()
    first = catalogue.model(_TAG)
    change(folder)
    second = catalogue.model(_TAG, max_age=0)
    assert second is not first
    assert second.entries == models().model(_TAG).entries


def test_moved_away_and_back_what_was_learnt_of_it_still_holds(models: Looks, folder: Path, store: Path) -> None:
    first = models().model(_TAG)
    folder.rename(store.parent / "aside")
    with pytest.raises(NotFoundError):
        models().model(_TAG)
    (store.parent / "aside").rename(folder)
    again = models().model(_TAG)
    assert again.fingerprint() == first.fingerprint(), "the files and all that is known of them are the same"


def test_a_model_of_many_files_is_seen_within_two_seconds(store: Path, clock: Clock) -> None:
    folder = make_model(store, "iris:v1", {f"d/{number:05}": b"x" for number in range(10_000)})
    catalogue = ModelStore(LocalStorage(str(store)))
    first = catalogue.model(_TAG)
    assert len(first.entries) == 10_002
    (folder / "d" / "00500").write_bytes(b"y")
    clock.advance(2)
    assert catalogue.model(_TAG) is not first


def test_a_walk_that_something_vanishes_from_is_made_once_more(
    models: Looks, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir
    vanished: list[str] = []

    def scandir(where: int) -> object:
        entries = list(real(where))
        if not vanished and any(entry.name == "b" for entry in entries):
            vanished.append("b")
            (folder / "weights" / "b").unlink()

        class _Found:
            def __enter__(self) -> object:
                return iter(entries)

            def __exit__(self, *_: object) -> None: ...

        return _Found()

    monkeypatch.setattr(os, "scandir", scandir)
    assert "weights/b" not in _paths(models().model(_TAG))
    assert vanished


def test_a_model_that_never_holds_still_is_not_there_rather_than_mixed(
    models: Looks, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = models()
    walk = catalogue.storage.walk

    def walk_after_a_change(path: str) -> object:
        _edit_model_yaml(folder)
        with (folder / "model.yaml").open("ab") as file:
            file.write(b"\n")
        os.utime(folder / "model.yaml", (1, 1))
        return walk(path)

    monkeypatch.setattr(catalogue.storage, "walk", walk_after_a_change)
    with pytest.raises(NotFoundError, match="changed while"):
        catalogue.model(_TAG)
