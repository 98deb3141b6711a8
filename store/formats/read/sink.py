"""Target: what an archive is unpacked to (`store.staging.model.StagedModel`), as far as those who unpack need it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Writer(Protocol):
    """A new file, within its context."""

    expected_crc32: int | None  # what its content must have; may be set until the context ends

    def write(self, view: memoryview) -> None:
        """Append bytes, which must stay as they are."""

    def copy_range(self, descriptor: int, offset: int, count: int) -> None:
        """Append bytes of another file, which stays open and as it is until all is unpacked."""

    def write_zeros(self, count: int, check: Callable[[], object]) -> None:
        """Append so many zeros; they take no room on the disk. `check`: called now and then; what it raises ends it."""

    def __enter__(self) -> Writer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Target(Protocol):
    """A folder that is being filled. Paths are those of the archive, `/` between names; they are checked here."""

    archive_read: Callable[[], int] | None  # tells how many bytes of the archive were read so far

    @property
    def max_members(self) -> int:
        """How many files and folders may come."""

    def folder(self, path: str) -> None:
        """Make a folder and those above it, unless they are there."""

    def file(self, path: str, executable: bool = False, *, replaces: bool = False) -> Writer:
        """A new file; the folders above it are made. `replaces`: a file that is there goes."""

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link."""

    def hard_link(self, path: str, target: str) -> None:
        """A second name for the file that has the path `target` in the archive."""

    def pass_over(self, count: int) -> None:
        """Take note of bytes that came out of the archive and are no part of the model."""

    def make_executable(self, path: str) -> bool:
        """Have a file that was written be executable; False if there is no such file."""

    def restart(self) -> None:
        """Forget all that came so far, and begin anew."""
