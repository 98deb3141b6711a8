"""Gap: bytes in the midst of a stream that become known a little later, such as a header with a compressed length."""

from __future__ import annotations


class CannotGrowError(Exception):
    """A stream cannot be given to its end before all of it is known. Nothing is wrong with its source."""


class Gap:
    """Bytes of known length whose content comes later."""

    __slots__ = ("content", "length")

    def __init__(self, length: int) -> None:
        self.length = length
        self.content: bytes | None = None  # set once it is known


Block = bytes | memoryview | Gap  # of a stream; whoever takes a view must copy it before taking the next block
