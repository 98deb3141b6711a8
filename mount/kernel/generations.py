"""Generations: which bytes the kernel believes to be at a path, and how a path passes from one generation to the next.

The problem: libfuse 2 keeps one node for each path. Page cache and size belong to the node, so handles of the old and
the new bytes under one name share them. Without precautions, a reader of the old model goes on with the new model's
bytes, or meets an early end. So:

- Before a path passes on, it is detached: the daemon unlinks it on its own mount. This takes the node away from the
  name and leaves it to its readers. So one inode of the kernel has one generation. Until that is done, `stat` answers
  the old attributes.
- If a path cannot be detached soon and nobody has the old bytes open, the node itself passes on. Every open from then
  on drops the node's cached pages.
- An open answers ESTALE if it finds another generation than the last lookup told the kernel. The kernel then looks the
  path up again and repeats the open by itself, once. The first open after a path passed on answers ESTALE, too, unless
  the path was looked up once more since: of two concurrent lookups, the kernel may believe the older one.

Knows no FUSE. Threading: any thread; the lock is never held while detaching or opening.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from bentofs.mount.view.nodes import Attributes, File
from bentofs.store.errors import SourceChangedError
from bentofs.store.formats.pieces import Piece

_PATHS_KEPT = 2000  # paths that nobody has open, remembered because the kernel caches them; 700 bytes each


@dataclass(slots=True)
class _Node:
    """The state of one path, as the kernel was told."""

    generation: Hashable
    look: int  # the number of the look at the store that found it
    attributes: Attributes
    told_at: int  # a ticket: a lookup with a later ticket confirms the node
    confirmed: bool  # True if the kernel certainly believes this generation
    keeps_pages: bool = True  # True if all pages in the kernel's cache are of this generation
    opened: bool = False
    handles: int = 0


@dataclass(frozen=True, slots=True)
class Handle:
    """An open file, pinned to its generation."""

    path: str
    piece: Piece
    attributes: Attributes
    node: _Node = field(repr=False)


class Detaching(Protocol):
    """The interface of the unlinker (`mount.kernel.libfuse2.unlinker`), which takes a path's node away from its
    name."""

    def detach(self, path: str) -> bool | None:
        """Detach a path. Return True if that is done, False if it failed, None if it is not known yet: `tried_late` is
        told then."""

    def detach_soon(self, path: str) -> None:
        """Detach a path without waiting at all. `tried_late` is told the result."""


class Generations:
    """The files of a mount as the kernel knows them."""

    def __init__(self, unlinker: Detaching) -> None:
        self._unlinker = unlinker
        self._lock = threading.Lock()
        self._nodes: dict[str, _Node] = {}
        self._detaching: dict[str, Attributes] = {}
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)
        self._tickets = itertools.count(1)

    def ticket(self) -> int:
        """Return a ticket. Take it when a lookup begins, before looking at anything."""
        return next(self._tickets)

    def tell(self, path: str, file: File, ticket: int) -> Attributes:
        """Return the attributes to answer to the lookup with this ticket. `file` is at the path now."""
        generation, attributes = file.generation, file.attributes()
        with self._lock:
            node = self._nodes.get(path)
            if node is None:
                self._remember(path, _Node(generation, file.look, attributes, ticket, confirmed=True))
                return attributes
            if node.generation == generation:
                node.look, node.attributes = max(node.look, file.look), attributes
                node.confirmed = node.confirmed or ticket > node.told_at
                return attributes
            if file.look < node.look or path in self._detaching:
                return node.attributes  # another thread has a newer file, or is detaching
            self._detaching[path] = node.attributes
        detached = self._unlinker.detach(path)
        with self._lock:
            if detached is not None:
                self._detaching.pop(path, None)
            if not detached and node.handles:
                return node.attributes
            new = _Node(generation, file.look, attributes, self.ticket(), confirmed=False, keeps_pages=bool(detached))
            self._remember(path, new)
        return attributes

    def vanished(self, path: str) -> None:
        """Note that nothing is at a path any more. The kernel's node is forgotten. If somebody has it open, it is
        detached instead, so that the next file at the path gets its own node."""
        with self._lock:
            node = self._nodes.get(path)
            if node is None or path in self._detaching:
                return
            if not node.handles:
                del self._nodes[path]
                return
            self._detaching[path] = node.attributes
        self._unlinker.detach_soon(path)

    def tried_late(self, path: str, detached: bool) -> None:
        """Note the unlinker's result for a path for which nobody waits any more."""
        with self._lock:
            self._detaching.pop(path, None)
            if detached:
                self._nodes.pop(path, None)

    def being_detached(self, path: str) -> Attributes | None:
        """Return the old attributes of a path that is being detached. The lookup made by the unlink needs them: it must
        find the old node, whatever is at the path now. Takes no lock: it is one look into a dict."""
        return self._detaching.get(path)

    def open(self, path: str, file: File) -> tuple[int, bool]:
        """Open `file`, which is at `path` now. Return the handle's number, and whether the kernel may keep its cached
        pages.

        Raises:
            SourceChangedError: the kernel must look the path up again, or the file is gone.
            StoreUnreadableError: the file may not be read.
        """
        generation, attributes = file.generation, file.attributes()
        piece = file.open()
        with self._lock:
            node = self._nodes.get(path)
            if node is None or node.generation != generation or not node.confirmed or path in self._detaching:
                raise SourceChangedError(f"{path} was replaced since it was looked up")
            keep_cache = node.opened and node.keeps_pages
            node.opened = True
            node.handles += 1
            number = next(self._numbers)
            self._handles[number] = Handle(path, piece, attributes, node)
        return number, keep_cache

    def handle(self, number: int) -> Handle:
        """Return the open file of this number."""
        return self._handles[number]

    def release(self, number: int) -> None:
        """Close an open file."""
        with self._lock:
            handle = self._handles.pop(number)
            handle.node.handles -= 1

    def _remember(self, path: str, node: _Node) -> None:
        if len(self._nodes) >= _PATHS_KEPT:
            # Forget the oldest half. That costs a second lookup at the next open. Open files must stay.
            old = list(itertools.islice(self._nodes.items(), _PATHS_KEPT // 2))
            for known_path, known in old:
                if not known.handles:
                    del self._nodes[known_path]
        self._nodes[path] = node
