# mypy: disable-error-code="override"
"""fsspec's own abstract tests, as far as they only read. They make their files by the file system: here, in the
directory of the model."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests

from bentofs.store.filesystem.file_system import BentofsFileSystem
from tests.harness import make_model


class _Filled(BentofsFileSystem):
    """A file system whose writes go into the store's directory behind its back."""

    cachable = False

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        with self._changed(path) as target:
            target.mkdir(parents=True, exist_ok=exist_ok)

    def mkdir(self, path: str) -> None:
        self.makedirs(path)

    def touch(self, path: str) -> None:
        self.pipe(path, b"")

    def pipe(self, path: str, value: bytes) -> None:
        with self._changed(path) as target:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(value)

    def rm(self, path: str, recursive: bool = False) -> None:
        assert recursive
        with self._changed(path) as target:
            shutil.rmtree(target)

    @contextmanager
    def _changed(self, path: str) -> Iterator[Path]:
        """Give the path in the store. The model still looks like one that BentoML has finished."""
        name, version, files, *below = self._strip_protocol(path).split("/")
        assert files == "files"
        model = Path(self._spec.location, name, version)
        before = model.stat()
        yield model.joinpath(*below)
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))


class TestGet(AbstractFixtures, AbstractGetTests):
    @pytest.fixture
    def fs(self, store: Path) -> BentofsFileSystem:
        make_model(store, "some:v1", {"leaf": b"leaf"})
        return _Filled(str(store))

    @pytest.fixture
    def fs_join(self) -> Any:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def fs_path(self) -> str:
        return "some/v1/files"
