"""Generations: which bytes the kernel believes to stand at a path, and how a path passes from one to the next.

The trap (libfuse 2 keeps one node for each path): page cache and size belong to the node, and so are shared by handles
of the old and the new bytes under one name. Left alone, a reader of the old model goes on with the new model's bytes,
or meets an early end. So:

- While nobody has the old bytes open, the node simply goes over: the next open drops the pages (no `keep_cache`).
- While somebody does, the path is detached first: the daemon unlinks it on its own mount, which takes the node away
  from the name and leaves it to its readers. Until that is done, `stat` answers the old attributes.
- An open that finds another generation than the last lookup told the kernel is answered ESTALE: the kernel looks the
  path up again and repeats the open, once, by itself.

Knows no FUSE. Threading: any thread; the lock is never held while detaching or opening.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from mount.nodes import Attributes, File
from store.archive.pieces import Piece
from store.errors import SourceChangedError

_PATHS_KEPT = 20_000  # paths nobody has open, remembered for the sake of the kernel's cache


@dataclass
class _Node:
    """What the kernel was told of one path."""

    generation: Hashable
    attributes: Attributes
    cached: Hashable = None  # the generation whose pages the kernel may hold
    handles: int = 0


@dataclass(frozen=True)
class Handle:
    """An open file, pinned to its generation."""

    path: str
    piece: Piece
    attributes: Attributes
    node: _Node = field(repr=False)


class Generations:
    """The files of a mount as the kernel knows them."""

    def __init__(self, detach: Callable[[str], bool]) -> None:
        """`detach`: takes a path's node away from its name; False if that could not be done soon."""
        self._detach = detach
        self._lock = threading.Lock()
        self._nodes: dict[str, _Node] = {}
        self._detaching: dict[str, Attributes] = {}
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)

    def tell(self, path: str, file: File) -> Attributes:
        """The attributes to answer for a path at which `file` stands now."""
        generation, attributes = file.generation, file.attributes()
        with self._lock:
            node = self._nodes.get(path)
            if node is None:
                self._remember(path, _Node(generation, attributes))
                return attributes
            if node.generation == generation or not node.handles:
                node.generation, node.attributes = generation, attributes
                return attributes
            if path in self._detaching:
                return node.attributes  # another thread is at it
            self._detaching[path] = node.attributes
        detached = self._detach(path)
        with self._lock:
            del self._detaching[path]
            if not detached:
                return node.attributes
            self._remember(path, _Node(generation, attributes))
        return attributes

    def being_detached(self, path: str) -> Attributes | None:
        """The old attributes of a path that is being detached: for the lookup that the unlinking makes, which must
        find what is to be taken away, whatever stands there now."""
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
            if node is None or node.generation != generation or path in self._detaching:
                raise SourceChangedError(f"{path} was replaced since it was looked up")
            keep_cache = node.cached == generation
            node.cached = generation
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
