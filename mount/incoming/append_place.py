"""AppendPlace: the offsets of the bytes that a program appends (O_APPEND) to an undecided file.

The kernel puts them at the end that the file is shown with. They belong there if the program resumes at that size, like
curl: then they begin with the hidden bytes (`mount.incoming.undecided`). Otherwise they belong behind the last byte.

Nothing is decided while a program has sent fewer bytes than are hidden, and all of them repeat hidden ones. The file
does not change meanwhile, since the same bytes are written over themselves. If another byte comes then, the program did
not resume: all of its bytes go behind the last byte.

Knows no FUSE. Threading: one thread; the kernel lets one program at a time append.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from bentofs.mount.incoming.undecided import shown_size

_COMPARED = 1 << 20  # bytes


class AppendPlace:
    """The place of the bytes of one open file."""

    def __init__(self) -> None:
        self._is_decided = False
        self._size = -1  # of the file before the first byte came
        self._hidden = b""  # the bytes to compare with
        self._repeated = 0  # how many of them came
        self._next = 0  # where the next bytes belong, as long as that lies before `_size`

    def pieces(
        self, descriptor: int, view: memoryview, offset: int, *, is_short: bool
    ) -> Iterator[tuple[memoryview, int]]:
        """Yield what to write for a write at the kernel's offset, with its offset in the file. `is_short`: the file is
        shown shorter than it is."""
        size = os.fstat(descriptor).st_size
        if self._size < 0:
            self._begin(descriptor, offset, size, is_short=is_short)
        elif not self._is_decided and size != self._size:  # it was truncated, or others wrote, too
            self._is_decided, self._next = True, self._size
        if not self._is_decided:
            expected = self._hidden[self._repeated : self._repeated + len(view)]
            if view[: len(expected)] != expected:
                yield from self._behind(view, size)
                return
            self._repeated += len(expected)
            self._is_decided = self._repeated == len(self._hidden)
        at = self._next if self._next < self._size else size
        yield view, at
        self._next = at + len(view)

    def _begin(self, descriptor: int, offset: int, size: int, *, is_short: bool) -> None:
        self._size = self._next = size
        if is_short and offset == shown_size(descriptor):
            self._next, self._hidden = offset, os.pread(descriptor, _COMPARED, offset)
        self._is_decided = not self._hidden

    def _behind(self, view: memoryview, size: int) -> Iterator[tuple[memoryview, int]]:
        """Yield all bytes of the program, those of earlier writes included, to be written behind the last byte."""
        before = self._hidden[: self._repeated]
        self._is_decided, self._next = True, self._size
        if before:
            yield memoryview(before), size
        yield view, size + len(before)
