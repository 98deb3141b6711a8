"""Generations: which bytes the kernel believes to stand at a path, and how a path passes from one to the next.

The trap (libfuse 2 keeps one node for each path): page cache and size belong to the node, and so are shared by handles
of the old and the new bytes under one name. Left alone, a reader of the old model goes on with the new model's bytes,
or meets an early end. So:

- Before a path passes on, it is detached: the daemon unlinks it on its own mount, which takes the node away from the
  name and leaves it to its readers. So one inode of the kernel has one generation. Until that is done, `stat` answers
  the old attributes.
- Where that cannot be done soon and nobody has the old bytes open, the node itself goes over, and every open from then
  on drops the pages it finds.
- An open that finds another generation than the last lookup told the kernel is answered ESTALE: the kernel looks the
  path up again and repeats the open, once, by itself. So is the first open after a path passed on, unless it was looked
  up once more since: of two lookups under way at once the kernel may believe the older one.

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

_PATHS_KEPT = 4000  # paths nobody has open, remembered for the sake of the kernel's cache; 700 bytes each


@dataclass(slots=True)
class _Node:
    """What the kernel was told of one path."""

    generation: Hashable
    look: int  # the number of the look at the store that found it
    attributes: Attributes
    told_at: int  # tickets: a lookup that began after this one confirms what was told
    confirmed: bool  # whether the kernel is sure to believe it
    keeps_pages: bool = True  # whether the kernel's pages can only be of this generation
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
    """What takes a path's node away from its name (`mount.kernel.libfuse2.unlinker`)."""

    def detach(self, path: str) -> bool | None:
        """Whether it could be done; None if that is not known yet: `tried_late` is told then."""

    def detach_soon(self, path: str) -> None:
        """Do not wait at all; `tried_late` is told."""


class Generations:
    """The files of a mount as the kernel knows them."""

    def __init__(self, detacher: Detaching) -> None:
        self._detacher = detacher
        self._lock = threading.Lock()
        self._nodes: dict[str, _Node] = {}
        self._detaching: dict[str, Attributes] = {}
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)
        self._tickets = itertools.count(1)

    def ticket(self) -> int:
        """Taken when a lookup begins, before anything is looked at."""
        return next(self._tickets)

    def tell(self, path: str, file: File, ticket: int) -> Attributes:
        """The attributes to answer for a path at which `file` stands now, to the lookup that took this ticket."""
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
                return node.attributes  # another thread knows better, or is at it
            self._detaching[path] = node.attributes
        detached = self._detacher.detach(path)
        with self._lock:
            if detached is not None:
                self._detaching.pop(path, None)
            if not detached and node.handles:
                return node.attributes
            new = _Node(generation, file.look, attributes, self.ticket(), confirmed=False, keeps_pages=bool(detached))
            self._remember(path, new)
        return attributes

    def vanished(self, path: str) -> None:
        """Nothing stands at a path any more. The kernel forgets its node, unless somebody has it open: then it is
        detached, so that what comes next gets a node of its own."""
        with self._lock:
            node = self._nodes.get(path)
            if node is None or path in self._detaching:
                return
            if not node.handles:
                del self._nodes[path]
                return
            self._detaching[path] = node.attributes
        self._detacher.detach_soon(path)

    def tried_late(self, path: str, detached: bool) -> None:
        """The detacher is done with a path for which nobody waited any more."""
        with self._lock:
            self._detaching.pop(path, None)
            if detached:
                self._nodes.pop(path, None)

    def being_detached(self, path: str) -> Attributes | None:
        """The old attributes of a path that is being detached: for the lookup that the unlinking makes, which must
        find what is to be taken away, whatever stands there now. Without the lock: one look into a dict."""
        return self._detaching.get(path)

    def open(self, path: str, file: File) -> tuple[int, bool]:
        """A handle on `file`, which stands at `path` now, and whether the kernel may keep the pages it has.

        Raises:
            SourceChangedError: the kernel must look the path up again, or the file is gone.
            StoreUnreadableError: it may not be read.
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
        """The open file of this number."""
        return self._handles[number]

    def release(self, number: int) -> None:
        """Let go of an open file."""
        with self._lock:
            handle = self._handles.pop(number)
            handle.node.handles -= 1

    def _remember(self, path: str, node: _Node) -> None:
        if len(self._nodes) >= _PATHS_KEPT:
            # The oldest half; forgetting costs a second lookup at the next open. Open ones must stay.
            old = list(itertools.islice(self._nodes.items(), _PATHS_KEPT // 2))
            for known_path, known in old:
                if not known.handles:
                    del self._nodes[known_path]
        self._nodes[path] = node
