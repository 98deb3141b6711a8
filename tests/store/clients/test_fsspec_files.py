"""Listings by fsspec's file systems: all files, or an error."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from bentofs.store.clients.fsspec_files import FsspecFiles
from bentofs.store.clients.retry import RetryPolicy
from bentofs.store.errors import StoreError
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.fsspec import FsspecEndpoint

registry = importlib.import_module("fsspec.registry")  # `fsspec.registry` is a dictionary in it
_POLICY = RetryPolicy(connect_seconds=1, silence_seconds=1, attempts=3, first_pause=0.001)
_FILES = ["model.yaml", "layers/a/w", "layers/b/w"]


class _Failing(LocalFileSystem):
    """A real file system on a server that fails in one directory."""

    protocol = "webdav"
    errors: Iterator[Exception] = iter(())

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol("/" + path.removeprefix("webdav://").lstrip("/")))

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        if path.endswith("/layers"):
            for error in self.errors:
                raise error
        return super().ls(path, detail, **kwargs)


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.setitem(registry._registry, "webdav", _Failing)
    for name in _FILES:
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).write_text(name)
    return Location.parse(f"webdav://{tmp_path}")


def in_store(location: Location) -> list[str]:
    return [found.key for found in FsspecFiles(location, _POLICY).list_objects("m/").objects]


def as_source(location: Location) -> list[str]:
    return [name for name, known in FsspecEndpoint(location, _POLICY).find(f"{location.path}/m") if known is not None]


@pytest.mark.parametrize("listed", [in_store, as_source])
def test_a_directory_that_cannot_be_listed_is_an_error(
    listed: Callable[[Location], list[str]], location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sorted(listed(location))
    assert len(whole) == len(_FILES)
    monkeypatch.setattr(_Failing, "errors", iter([PermissionError("denied")] * 9))
    with pytest.raises(StoreError):
        listed(location)
    monkeypatch.setattr(_Failing, "errors", iter([ConnectionResetError("reset")] * 9))
    with pytest.raises(StoreError):
        listed(location)
    monkeypatch.setattr(_Failing, "errors", iter([TimeoutError("slow")]))  # the next try succeeds
    assert sorted(listed(location)) == whole
    monkeypatch.setattr(_Failing, "errors", iter([FileNotFoundError("gone")]))  # removed meanwhile
    assert [name.rpartition("/")[2] for name in listed(location)] == ["model.yaml"]
