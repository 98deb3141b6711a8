"""Fixtures for tests of the library."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.storage.local import LocalStorage
from tests.store.clock import Clock

Looks = Callable[[], ModelStore]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "cache" / "index.sqlite")
    yield index
    index.close()


@pytest.fixture
def models(store: Path, clock: Clock) -> Looks:
    """Return the store's catalogue, the same at each call. Each call advances the clock by two seconds: then changes
    are seen."""
    catalogue = ModelStore(LocalStorage(str(store)))

    def look() -> ModelStore:
        clock.advance(2)
        return catalogue

    return look
