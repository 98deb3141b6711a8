"""The list of models behind the pages: how it follows the store."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.mount.serve.pages import overview
from bentofs.mount.serve.pages.overview import Overview, Search
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import StoreUnreadableError
from bentofs.store.model.model import ModelInfo
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model, remove_model, wait_until


class _Slow(ModelStore):
    """A catalogue of which each look can be held up, and can fail."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStorage(str(folder)))
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: Exception | None = None
        self.looks = 0

    def infos(self) -> Iterator[ModelInfo]:
        self.looks += 1
        assert self.may_go_on.wait(30)
        if self.error is not None:
            raise self.error
        return super().infos()


def names(seen: Overview) -> list[str]:
    return [row.card.tag.name for row in seen.find(Search()).rows]


def test_a_change_is_seen(tmp_path: Path) -> None:
    make_model(tmp_path, "a:v1", {"w": b"w"})
    seen = Overview(ModelStore(LocalStorage(str(tmp_path))))
    assert names(seen) == ["a"]
    make_model(tmp_path, "b:v1", {"w": b"w"})
    wait_until(lambda: names(seen) == ["a", "b"], 10, "a model that came")
    remove_model(tmp_path, "a:v1")
    wait_until(lambda: names(seen) == ["b"], 10, "a model that went")


@pytest.mark.parametrize(
    "error",
    [
        None,
        StoreUnreadableError("the disk is away"),
        pytest.param(RuntimeError("odd"), marks=pytest.mark.expect_log("the list of models is not renewed")),
    ],
)
def test_a_slow_look_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    """A look that fails behind a visitor's back is followed by others."""
    monkeypatch.setattr(overview, "_QUICK_SECONDS", -1.0)
    monkeypatch.setattr(overview, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(overview, "_SHARE", 0)
    make_model(tmp_path, "a:v1", {"w": b"w"})
    store = _Slow(tmp_path)
    seen = Overview(store)
    assert names(seen) == ["a"]
    make_model(tmp_path, "b:v1", {"w": b"w"})
    store.may_go_on.clear()
    store.error = error
    for _ in range(3):
        assert names(seen) == ["a"]
    assert store.looks == 2
    store.may_go_on.set()
    wait_until(lambda: names(seen) and store.looks > 2, 10, "another look")
    store.error = None
    wait_until(lambda: names(seen) == ["a", "b"], 10, "the model")


def test_an_import_is_seen_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "_QUICK_SECONDS", -1.0)
    monkeypatch.setattr(overview, "_FRESH_SECONDS", 1000.0)
    make_model(tmp_path, "a:v1", {"w": b"w"})
    seen = Overview(_Slow(tmp_path))
    assert names(seen) == ["a"]
    make_model(tmp_path, "b:v1", {"w": b"w"})
    seen.expire()
    assert names(seen) == ["a", "b"]
