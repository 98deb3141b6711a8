"""A storage that counts the bytes read of each file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bentofs.store.storage.base import Identity
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.local_file import LocalFile


class CountingStorage(LocalStorage):
    """The real storage; it counts the bytes read of each file, and calls back before each read."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.bytes_read: dict[str, int] = {}
        self.before_read: Callable[[str], None] = lambda _source: None

    def open_file(self, source: str, identity: Identity) -> Any:  # a LocalFile that counts
        return _CountedFile(self, source, super().open_file(source, identity))

    def read_whole(self, files: Iterable[tuple[str, Identity, memoryview]]) -> None:
        for source, identity, view in files:
            self.open_file(source, identity).read_into([view], 0)

    def count(self, name: str = "") -> int:
        return sum(count for source, count in self.bytes_read.items() if source.endswith(name))


class _CountedFile:
    def __init__(self, storage: CountingStorage, source: str, file: LocalFile) -> None:
        self._storage = storage
        self._source = source
        self._file = file

    def read_into(self, views: list[memoryview], offset: int) -> None:
        self._storage.before_read(self._source)
        self._file.read_into(views, offset)
        counts = self._storage.bytes_read
        counts[self._source] = counts.get(self._source, 0) + sum(map(len, views))
