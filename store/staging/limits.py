"""Limits of a model that is being staged, and the counts that they bound.

Threading: one thread stages a model and counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from bentofs.store.errors import TooBigError

_FREE_EXPANSION = 1 << 30  # bytes that any archive may expand to
_MAX_RATIO = 1000  # beyond that, bytes for each byte of the archive; deflate at its best comes to 1032


class Limits(NamedTuple):
    """The limits of one model."""

    members: int = 1_000_000  # files and directories
    expanded: int = 1 << 40  # bytes of all files


class Counts:
    """The counts of one model. All methods raise TooBigError beyond the limits."""

    def __init__(self, limits: Limits, archive_read: Callable[[], int] | None) -> None:
        """`archive_read`: returns the bytes of the archive read so far; None if the model comes from no archive."""
        self._limits = limits
        self.archive_read = archive_read
        self._members = 0
        self._expanded = 0
        self._passed_over = 0

    def add_member(self) -> None:
        """Count a file or directory."""
        self._members += 1
        if self._members > self._limits.members:
            raise TooBigError(
                f"the archive holds more than {self._limits.members:,} files and directories: --max-members allows more"
            )

    def grow(self, count: int) -> None:
        """Count bytes that are about to be written to a file."""
        self._expanded += count
        if self._expanded > self._limits.expanded:
            raise TooBigError(
                f"the archive expands to more than {self._limits.expanded:,} bytes: --max-expanded allows more"
            )
        self._refuse_bombs()

    def pass_over(self, count: int) -> None:
        """Count bytes that came out of the archive but are no part of the model."""
        self._passed_over += count
        self._refuse_bombs()

    def _refuse_bombs(self) -> None:
        read = self.archive_read() if self.archive_read is not None else None
        if read is not None and self._expanded + self._passed_over > _FREE_EXPANSION + _MAX_RATIO * read:
            raise TooBigError(f"the archive expands to more than {_MAX_RATIO:,} times its size, which no model does")
