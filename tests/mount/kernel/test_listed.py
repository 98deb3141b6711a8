"""The subdirectories that a listing told of stand for a look at them, for a moment."""

import time
from pathlib import Path

import pytest

from bentofs.mount.kernel import listed
from bentofs.mount.kernel.listed import Listed
from bentofs.mount.view.nodes import Attributes, Folder, Item, Node, Subject, folder_attributes
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import NotFoundError
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model


class Empty(Folder):
    """A directory without entries."""

    def attributes(self) -> Attributes:
        return folder_attributes("/empty", 0, 0)

    def items(self) -> list[Item]:
        return []

    def child(self, name: str) -> Node:
        raise NotFoundError(f"{name} is not there")


def test_subdirectories_of_the_last_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "_SECONDS", 60.0)
    last, first, second, now = Listed(), Empty(), Empty(), time.monotonic()
    assert last.find("/models") is None
    last.keep("/", {"models": first}, now)
    assert last.find("/models") == (first, now)
    last.keep("/models/a", {"v1": second}, now)
    assert last.find("/models/a/v1") == (second, now)
    assert last.find("/models") is None
    last.keep("/models/a/v1/files", {}, now)
    assert last.find("/models/a/v1") is not None, (
        "a listing without subdirectories leaves the last ones: they come next"
    )


def test_a_listing_is_believed_for_a_moment_after_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each level of a deep tree would add a moment."""
    monkeypatch.setattr(listed, "_SECONDS", 60.0)
    last = Listed()
    last.keep("/", {"models": Empty()}, time.monotonic() - 61)
    assert last.find("/models") is None
    last.keep("/", {"models": Empty()}, time.monotonic())
    monkeypatch.setattr(listed, "_SECONDS", 0.0)
    assert last.find("/models") is None


def test_many_subdirectories_are_not_kept_in_memory() -> None:
    last = Listed()
    last.keep("/", {str(number): Empty() for number in range(listed._KEPT + 1)}, time.monotonic())
    assert last.find("/0") is None


def test_large_models_are_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(listed, "_SECONDS", 60.0)
    make_model(tmp_path / "models", "m:v1", {"a/x": b"1", "b/x": b"1"})
    model = ModelStore(LocalStorage(str(tmp_path / "models"))).model(Tag("m", "v1"))

    class OfModel(Empty):
        def subject(self) -> Subject:
            return Subject(model)

    last = Listed()
    monkeypatch.setattr(listed, "_MEMORY", model.weight)
    last.keep("/", {"v1": OfModel()}, time.monotonic())
    assert last.find("/v1") is not None
    last.keep("/v1", {"a": OfModel(), "b": OfModel()}, time.monotonic())
    assert last.find("/v1/a") is not None, "both are of one model"
    monkeypatch.setattr(listed, "_MEMORY", model.weight - 1)
    last.keep("/", {"v1": OfModel()}, time.monotonic())
    assert last.find("/v1") is None
