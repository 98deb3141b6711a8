"""Links of a model that is being staged: kept as words until all is there, then replaced by what they lead to.

Symbolic and hard links are followed as the system would follow them, but in the archive's own names: a step out of it,
to nowhere, or into a circle is refused. BentoML's readers restore no links, and archives of ours hold none.

Threading: one thread.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import NamedTuple, Protocol

from bentofs.store.errors import TooBigError, UnsafeMemberError
from bentofs.store.storage.local_walk import MAX_LINKED
from bentofs.store.util.display import printable

_MAX_TARGET = 4096  # characters, as for any path
_MAX_MEMORY = 8 << 20  # bytes of paths and targets: 10,000 links with names of a few hundred characters
_MAX_HOPS = 40  # links followed on one path: as many as Linux follows
_MAX_STEPS = 2_000_000  # names on the paths of all links, with those they lead over: some seconds


class Tree(Protocol):
    """What links are replaced in."""

    def look(self, path: str) -> os.stat_result | None:
        """What stands at a path, no link taken into account; None if nothing does."""

    def names(self, path: str) -> list[str]:
        """What lies in a folder."""

    def make_folder(self, path: str) -> None:
        """Make a folder."""

    def copy_file(self, path: str, target: str) -> None:
        """Copy a file."""


class _Link(NamedTuple):
    target: str
    is_hard: bool


class Links:
    """The links of one model, by their paths."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}
        self._to: dict[str, set[str]] = {}  # hard links, by their targets
        self._copied = 0
        self._steps = 0
        self._memory = 0  # bytes of paths and targets

    def __bool__(self) -> bool:
        return bool(self._links)

    def __contains__(self, path: str) -> bool:
        return path in self._links

    def has(self, path: str, target: str, *, is_hard: bool) -> bool:
        """Tell whether this very link is known."""
        return self._links.get(path) == _Link(target, is_hard)

    def add(self, path: str, target: str, *, is_hard: bool) -> None:
        """A link at `path`. A symbolic one's target is relative to its folder, a hard one's to the top."""
        if len(self._links) >= MAX_LINKED:
            raise TooBigError(f"the archive holds more than {MAX_LINKED:,} links")
        self._memory += sys.getsizeof(path) + sys.getsizeof(target)
        if self._memory > _MAX_MEMORY:
            raise TooBigError("the archive holds more links, with longer names, than a model has")
        if len(target) > _MAX_TARGET:
            raise UnsafeMemberError(f"the archive holds a link with a target of {len(target):,} characters")
        self._links[path] = _Link(target, is_hard)
        if is_hard:
            self._to.setdefault(target, set()).add(path)

    def take_hard_links_to(self, path: str) -> set[str]:
        """Forget the hard links to a file. The caller makes files of them, since another file takes its place."""
        found = self._to.pop(path, set())
        for link in found:
            del self._links[link]
        return found

    def give_way(self, path: str) -> bool:
        """Forget a hard link in whose place a file comes; False if it is none. Others that led to it lead on."""
        link = self._links.get(path)
        if link is None or not link.is_hard:
            return False
        self._to[link.target].discard(path)
        del self._links[path]
        for other in self.take_hard_links_to(path):
            self._links[other] = link
            self._to[link.target].add(other)
        return True

    def count_copy(self) -> None:
        """Take note of a file or folder that is about to be made in place of a link.

        Raises:
            TooBigError: they are too many.
        """
        self._copied += 1
        if self._copied > MAX_LINKED:
            raise TooBigError(f"the archive holds more than {MAX_LINKED:,} files and folders behind links")

    def replace(self, tree: Tree) -> None:
        """Put copies in place of all links.

        Raises:
            UnsafeMemberError: a link leads out of the model, nowhere, or into a circle.
            TooBigError: the copies are too many.
        """
        below: dict[str, list[str]] = {}
        for path in self._links:
            folder, _, name = path.rpartition("/")
            below.setdefault(folder, []).append(name)
        for path in list(self._links):
            self._copy(tree, below, self._resolve(tree, path), path, [])
        self._links.clear()

    def _copy(self, tree: Tree, below: dict[str, list[str]], source: str, target: str, above: list[str]) -> None:
        """Copy what stands at `source`, where no link is, to `target`. `above`: the folders being copied."""
        self.count_copy()
        look = tree.look(source)
        if look is None:
            raise _nowhere(target)
        if not stat.S_ISDIR(look.st_mode):
            tree.copy_file(source, target)
            return
        if source in above or not source or target.startswith(f"{source}/"):
            raise UnsafeMemberError(f"the archive holds {printable(target)!r}, a link to a folder around it")
        tree.make_folder(target)
        for name in {*tree.names(source), *below.get(source, ())}:
            child = f"{source}/{name}"
            self._copy(tree, below, self._resolve(tree, child), f"{target}/{name}", [*above, source])

    def _resolve(self, tree: Tree, path: str) -> str:
        """Where a path leads when all links are followed."""
        done: list[str] = []
        todo = path.split("/")[::-1]
        hops = 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if not done:
                    raise _leads_out(path)
                done.pop()
                continue
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise TooBigError("the archive holds links that take too long to follow")
            done.append(name)
            link = self._links.get("/".join(done))
            if link is None:
                look = tree.look("/".join(done)) if todo else None
                if todo and (look is None or not stat.S_ISDIR(look.st_mode)):
                    raise _nowhere(path)
                continue
            hops += 1
            if hops > _MAX_HOPS:
                raise UnsafeMemberError(f"the archive holds {printable(path)!r}, a link into a circle of links")
            if link.target.startswith("/"):
                raise _leads_out(path)
            done = [] if link.is_hard else done[:-1]
            todo += link.target.split("/")[::-1]
        return "/".join(done)


def _leads_out(path: str) -> UnsafeMemberError:
    return UnsafeMemberError(
        f"the archive holds {printable(path)!r}, a link that leads out of the model: replace it by the file"
    )


def _nowhere(path: str) -> UnsafeMemberError:
    return UnsafeMemberError(f"the archive holds {printable(path)!r}, a link that leads nowhere")
