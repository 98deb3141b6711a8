"""Links of a model that is being staged: kept as text until all files are there, then replaced by their targets.

Symbolic and hard links are followed like the system does, but within the archive's own names. A link out of the
archive, to nowhere, or into a circle is refused. BentoML's readers restore no links, and our archives hold none.

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
_MAX_HOPS = 40  # links followed on one path: Linux's limit
_MAX_STEPS = 2_000_000  # names on all paths that are followed: some seconds of work


class LinkTree(Protocol):
    """The file tree in which links are replaced."""

    def look(self, path: str) -> os.stat_result | None:
        """Return the stat at a path, links not followed; None if nothing is there."""

    def names(self, path: str) -> list[str]:
        """List a directory."""

    def make_folder(self, path: str) -> None:
        """Make a directory."""

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
        """Tell whether the same link is known."""
        return self._links.get(path) == _Link(target, is_hard)

    def add(self, path: str, target: str, *, is_hard: bool) -> None:
        """Add a link at `path`. A symbolic link's target is relative to its directory, a hard link's to the top."""
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
        """Forget and return the hard links to a file. The caller copies the file to them, since a new file replaces
        it."""
        found = self._to.pop(path, set())
        for link in found:
            del self._links[link]
        return found

    def give_way(self, path: str) -> bool:
        """Forget a hard link that a file replaces; False if it is none. Other links to it get its target."""
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
        """Count a file or directory that is about to be made in place of a link.

        Raises:
            TooBigError: there are too many.
        """
        self._copied += 1
        if self._copied > MAX_LINKED:
            raise TooBigError(f"the archive holds more than {MAX_LINKED:,} files and directories behind links")

    def replace(self, tree: LinkTree) -> None:
        """Replace all links by copies of their targets.

        Raises:
            UnsafeMemberError: a link leads out of the model, nowhere, or into a circle.
            TooBigError: there are too many copies.
        """
        below: dict[str, list[str]] = {}
        for path in self._links:
            folder, _, name = path.rpartition("/")
            below.setdefault(folder, []).append(name)
        for path in list(self._links):
            self._copy(tree, below, self._resolve(tree, path), path, [])
        self._links.clear()

    def _copy(self, tree: LinkTree, below: dict[str, list[str]], source: str, target: str, above: list[str]) -> None:
        """Copy the file or directory `source`, which is no link, to `target`. `above`: the directories being copied."""
        self.count_copy()
        look = tree.look(source)
        if look is None:
            raise _nowhere(target)
        if not stat.S_ISDIR(look.st_mode):
            tree.copy_file(source, target)
            return
        if source in above or not source or target.startswith(f"{source}/"):
            raise UnsafeMemberError.in_archive(printable(target), "a link to a directory around it")
        tree.make_folder(target)
        for name in {*tree.names(source), *below.get(source, ())}:
            child = f"{source}/{name}"
            self._copy(tree, below, self._resolve(tree, child), f"{target}/{name}", [*above, source])

    def _resolve(self, tree: LinkTree, path: str) -> str:
        """Return the path with all links followed."""
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
                raise UnsafeMemberError.in_archive(printable(path), "a link into a circle of links")
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
    return UnsafeMemberError.in_archive(printable(path), "a link that leads nowhere")
