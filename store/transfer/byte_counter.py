"""The count of the bytes that an import has read. It reports progress and ends imports that are not wanted any more."""

from __future__ import annotations

from bentofs.store.transfer.endpoints.base import Progress
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped


class Counted:
    """Counts bytes, reports them, and ends an import that is not wanted any more."""

    def __init__(self, progress: Progress, stops: CancelTokens, expect: Progress | None = None) -> None:
        self._progress = progress
        self._stops = stops
        self._expect = expect
        self.total = 0

    def expect(self, size: int | None) -> None:
        """Report how many bytes will come."""
        if size is not None and self._expect is not None:
            self._expect(size)

    def __call__(self, count: int) -> None:
        refuse_if_stopped(self._stops)
        self.total += count
        self._progress(count)
