"""A target that discards all unpacked data but checksums: for more data than a test should write."""

from collections.abc import Callable
from types import TracebackType

from bentofs.store.formats.crc32 import crc32


class Discarding:
    """Check sizes and CRC-32s like a staged model."""

    def __init__(self) -> None:
        self.archive_read: Callable[[], int] | None = None
        self.max_members = 1_000_000
        self.crcs: dict[str, int] = {}
        self.sizes: dict[str, int] = {}
        self.restarted = False

    def folder(self, path: str) -> None:
        raise AssertionError(path)

    def file(self, path: str, executable: bool = False, *, replaces: bool = False) -> "_File":
        assert path not in self.crcs
        assert not executable
        assert not replaces
        return _File(self, path)

    def symlink(self, path: str, target: str) -> None:
        raise AssertionError(path, target)

    def hard_link(self, path: str, target: str) -> None:
        raise AssertionError(path, target)

    def make_executable(self, path: str) -> bool:
        raise AssertionError(path)

    def pass_over(self, count: int) -> None:
        raise AssertionError(count)

    def restart(self) -> None:
        self.crcs.clear()
        self.sizes.clear()
        self.restarted = True


class _File:
    def __init__(self, target: Discarding, path: str) -> None:
        self.expected_crc32: int | None = None
        self._target = target
        self._path = path
        self._crc = self._size = 0

    def write(self, view: memoryview) -> None:
        self._crc = crc32(view, self._crc)
        self._size += len(view)

    def write_zeros(self, count: int, check: Callable[[], object]) -> None:
        raise AssertionError(count, check)

    def __enter__(self) -> "_File":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            assert self.expected_crc32 in (None, self._crc)
            self._target.crcs[self._path] = self._crc
            self._target.sizes[self._path] = self._size
