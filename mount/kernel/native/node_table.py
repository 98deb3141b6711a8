"""NodeTable: the nodes that the kernel knows, by their numbers.

A path has its own node for each generation of its bytes. So all pages and sizes that the kernel caches for a node are
of one generation. An open file stays with the node that it was opened on, and a new lookup gives a new node.

The kernel counts how often it was told of a node, and reports when it forgets one. Numbers are never used again. At
most `_FILES_KEPT` files are remembered. Beyond that, the oldest files that nobody has open are dropped. The kernel then
gets ESTALE and looks them up again. While decoders need all memory, fewer are remembered.

Threading: any thread.
"""

from __future__ import annotations

import itertools
import stat
import threading
from collections.abc import Hashable, Iterable

from bentofs.mount.kernel.native.protocol import ROOT_ID
from bentofs.mount.kernel.operations import Look
from bentofs.mount.view.nodes import Attributes
from bentofs.store.errors import SourceChangedError
from bentofs.store.util.memory_budget import MemoryBudget

_FILES_KEPT = 100_000  # of about 500 bytes each
_FILES_LEFT = 4_000  # remembered when decoders begin to need all memory

# The same objects for all nodes: `stat.S_IFMT` makes a new number at each call.
_KINDS = {kind: kind for kind in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK)}


class Node:
    """One file, link or directory that the kernel knows."""

    __slots__ = ("attributes", "generation", "handles", "id", "is_gone", "kind", "lookups", "path")

    def __init__(self, number: int, path: str, kind: int, generation: Hashable) -> None:
        self.id = number
        self.path = path  # in the mount
        self.kind = kind  # the file type of its mode
        self.generation = generation  # None for directories and all in incoming/
        self.attributes: Attributes | None = None  # told to the kernel last; None for a node with a generation
        self.lookups = 0
        self.handles: tuple[int, ...] = ()  # the handles of its open files, the oldest first
        self.is_gone = False  # True after an unlink or a rename took it from its path

    def __repr__(self) -> str:
        return f"<node {self.id} {self.path}>"


class NodeTable:
    """The nodes of one mount."""

    def __init__(self, budget: MemoryBudget | None = None) -> None:
        """`budget`: of the process's memory, which says when it is short."""
        self._lock = threading.Lock()
        self._numbers = itertools.count(ROOT_ID + 1)
        root = Node(ROOT_ID, "/", stat.S_IFDIR, None)
        root.lookups = 1  # the kernel never forgets it
        self._by_id: dict[int, Node] = {ROOT_ID: root}
        self._by_path: dict[str, Node] = {"/": root}  # the node that the kernel was told of last
        self._files = 0
        self._limit = _FILES_KEPT  # of `_files`
        self._budget = budget or MemoryBudget()
        self._budget.share(0, self._shrink)  # a share of nothing: to be told when caches must shrink

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, number: int) -> Node:
        """Return the node of this number.

        Raises:
            SourceChangedError: it is not known any more; the kernel then looks its path up again.
        """
        node = self._by_id.get(number)
        if node is None:
            raise SourceChangedError(f"node {number} was forgotten")
        return node

    def tell(self, path: str, look: Look) -> Node:
        """Return the node for a path as looked up just now. Count that the kernel is told of it."""
        attributes, generation = look
        kind = stat.S_IFMT(attributes.mode)
        kind = _KINDS.get(kind, kind)
        with self._lock:
            node = self._by_path.get(path)
            if node is None or node.generation != generation or node.kind != kind:
                node = self._add(path, kind, generation)
            if generation is None:
                node.attributes = attributes
            node.lookups += 1
            return node

    def forget(self, counts: Iterable[tuple[int, int]]) -> None:
        """Count that the kernel forgot nodes. `counts`: pairs of a node's number and the number of lookups given
        back."""
        with self._lock:
            for number, count in counts:
                node = self._by_id.get(number)
                if node is None or number == ROOT_ID:
                    continue
                node.lookups -= count
                if node.lookups <= 0:
                    self._drop(node)

    def opened(self, node: Node, handle: int) -> None:
        """Note an open file of a node."""
        with self._lock:
            node.handles = (*node.handles, handle)

    def released(self, number: int, handle: int) -> None:
        """Note that an open file of a node was closed."""
        with self._lock:
            node = self._by_id.get(number)
            if node is not None:
                node.handles = tuple(each for each in node.handles if each != handle)

    def remove(self, path: str) -> None:
        """Note that a path was removed. Programs that have it open still see its node."""
        with self._lock:
            self._detach(path)

    def rename(self, old: str, new: str) -> None:
        """Note that a path, and all below it, was renamed."""
        with self._lock:
            node = self._by_path.get(old)
            self._detach(new)
            self._move(old, new)
            if node is None or node.kind == stat.S_IFDIR:
                for path in [path for path in self._by_path if path.startswith(f"{old}/")]:
                    self._move(path, new + path[len(old) :])

    def _add(self, path: str, kind: int, generation: Hashable) -> Node:
        node = Node(next(self._numbers), path, kind, generation)
        self._by_id[node.id] = self._by_path[path] = node
        if kind != stat.S_IFDIR:
            self._files += 1
            if self._files > self._limit:
                self._drop_oldest(_FILES_KEPT // 2)
                # If most are open, the limit rises, since each call takes time.
                self._limit = max(_FILES_KEPT, 2 * self._files)
        return node

    def _shrink(self) -> None:
        if self._budget.is_short:
            with self._lock:
                self._drop_oldest(_FILES_LEFT)

    def _drop(self, node: Node) -> None:
        if self._by_id.pop(node.id, None) is None:
            return
        if node.kind != stat.S_IFDIR:
            self._files -= 1
        if self._by_path.get(node.path) is node:
            del self._by_path[node.path]

    def _drop_oldest(self, left: int) -> None:
        """Drop the oldest files until so many are left, except for open ones."""
        for node in list(self._by_id.values()):
            if self._files <= left:
                break
            if node.kind != stat.S_IFDIR and not node.handles:
                self._drop(node)

    def _detach(self, path: str) -> None:
        node = self._by_path.pop(path, None)
        if node is not None:
            node.is_gone = True

    def _move(self, old: str, new: str) -> None:
        node = self._by_path.pop(old, None)
        if node is not None:
            node.path = new
            self._by_path[new] = node
