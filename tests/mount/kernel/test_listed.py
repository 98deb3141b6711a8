"""The subdirectories that a listing told of stand for a look at them, for a moment."""

import pytest

from bentofs.mount.kernel import listed
from bentofs.mount.kernel.listed import Listed
from bentofs.mount.view.nodes import Attributes, Folder, Item, Node, folder_attributes
from bentofs.store.errors import NotFoundError


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
    last, first, second = Listed(), Empty(), Empty()
    assert last.find("/models") is None
    last.keep("/", {"models": first})
    assert last.find("/models") is first
    last.keep("/models/a", {"v1": second})
    assert last.find("/models/a/v1") is second
    assert last.find("/models") is None
    last.keep("/models/a/v1/files", {})
    assert last.find("/models/a/v1") is second, "a listing without subdirectories leaves the last ones: they come next"


def test_a_listing_is_believed_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed, "_SECONDS", 0.0)
    last = Listed()
    last.keep("/", {"models": Empty()})
    assert last.find("/models") is None


def test_many_subdirectories_are_not_kept_in_memory() -> None:
    last = Listed()
    last.keep("/", {str(number): Empty() for number in range(listed._KEPT + 1)})
    assert last.find("/0") is None
