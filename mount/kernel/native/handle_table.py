"""HandleTable: the open files of the tree. Each reads the generation that it was opened on, or fails."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from bentofs.mount.view.nodes import Attributes, File
from bentofs.store.formats.pieces import Piece


class OpenFile(NamedTuple):
    """An open file, pinned to its generation."""

    piece: Piece
    attributes: Attributes


class HandleTable:
    """The handles of one mount. Threading: any thread; each step is one look into a dict."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._handles: dict[int, OpenFile] = {}

    def open(self, path: str, file: File) -> tuple[int, bool]:  # noqa: ARG002 - a node has one generation
        """Open a file. Return its number, and True: all pages that the kernel caches for a node are of its
        generation."""
        opened = OpenFile(file.open(), file.attributes())
        number = next(self._numbers)
        self._handles[number] = opened
        return number, True

    def handle(self, number: int) -> OpenFile:
        """Return the open file of this number."""
        return self._handles[number]

    def release(self, number: int) -> None:
        """Close an open file."""
        del self._handles[number]
