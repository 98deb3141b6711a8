"""Sink: the destination of an unpacked archive (`store.staging.model.StagedModel`), as the unpackers see it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Writer(Protocol):
    """A new file, written within its context."""

    expected_crc32: int | None  # the CRC-32 that its content must have; may be set until the context ends

    def write(self, view: memoryview) -> None:
        """Append bytes. They must not change later."""

    def write_zeros(self, count: int, check: Callable[[], object]) -> None:
        """Append `count` zeros without using disk space. `check` is called regularly; its exception ends the write."""

    def __enter__(self) -> Writer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sink(Protocol):
    """A directory that is being filled. Paths come from the archive, with `/` between names, and are checked here."""

    archive_read: Callable[[], int] | None  # returns how many bytes of the archive were read so far

    @property
    def max_members(self) -> int:
        """Return the maximum number of files and directories."""

    def folder(self, path: str) -> None:
        """Make a directory and its parents, unless they exist."""

    def file(self, path: str, executable: bool = False, *, replaces: bool = False) -> Writer:
        """Make a new file and its parent directories. `replaces`: replace an existing file."""

    def symlink(self, path: str, target: str) -> None:
        """Make a symbolic link."""

    def hard_link(self, path: str, target: str) -> None:
        """Make a second name for the file at the path `target` in the archive."""

    def pass_over(self, count: int) -> None:
        """Count bytes that come from the archive and are no part of the model."""

    def make_executable(self, path: str) -> bool:
        """Make a written file executable. Return False if there is no such file."""

    def restart(self) -> None:
        """Drop everything written so far and start again."""
