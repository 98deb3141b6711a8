"""Site: what the handlers of a server need, and the look at a path.

Threading: made once. Handlers run in the event loop's thread, and look at the tree in the threads of `read` and `write`
only: both may wait for a disk or a server.
"""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.view.nodes import File, Folder, Link
from bentofs.mount.view.traffic import Traffic
from bentofs.mount.view.tree import INCOMING, Tree
from bentofs.store.errors import NotFoundError
from bentofs.store.transfer.import_log import ImportLog

_READERS, _WRITERS = 32, 32  # threads
_LINKS = 8  # that one path may lead through

_T = TypeVar("_T")


class Site:
    """One served tree."""

    def __init__(
        self, tree: Tree, namespace: Namespace | None, record: ImportLog | None, traffic: Traffic, user: int
    ) -> None:
        """`namespace`, `record`: None for a tree without `incoming/`; `user`: the uid to which uploads belong."""
        self.tree = tree
        self.namespace = namespace
        self.record = record
        self.traffic = traffic
        self.user = user
        self._readers = ThreadPoolExecutor(_READERS, "read")
        self._writers = ThreadPoolExecutor(_WRITERS, "write")

    async def read(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run a look at the store, or a read, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)

    async def write(self, work: Callable[..., _T], *arguments: object) -> _T:
        """Run a change of the drop box in a thread. It may wait for an import, so readers have threads of their own."""
        return await asyncio.get_running_loop().run_in_executor(self._writers, work, *arguments)

    def find(self, names: Sequence[str]) -> tuple[tuple[str, ...], Folder | File]:
        """Return the node at a path, and the names of its true place. Follow links: HTTP has none.

        Raises:
            NotFoundError: there is none.
            StoreError: the store cannot be read.
        """
        rest, links = list(reversed(names)), 0
        place: list[str] = []
        node = self.tree.lookup("/")
        while rest:
            name = rest.pop()
            if not isinstance(node, Folder):
                raise NotFoundError(f"/{'/'.join(names)} is not there")
            found = node.child(name)
            if isinstance(found, Link):
                links += 1
                if links > _LINKS:
                    raise NotFoundError(f"/{'/'.join(names)} leads through too many links")
                target = posixpath.normpath(posixpath.join("/", *place, found.target))
                rest += reversed([part for part in target.split("/") if part])
                place, found = [], self.tree.lookup("/")
            else:
                place.append(name)
            node = found
        assert not isinstance(node, Link)
        return tuple(place), node

    def below_incoming(self, names: Sequence[str]) -> str | None:
        """Return the path below `incoming/`; None for a path outside of it, or in a tree without it."""
        if self.namespace is None or not names or names[0] != INCOMING:
            return None
        return "/".join(names[1:])

    def close(self) -> None:
        """End the threads that have nothing to do. Do not wait for the others."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False)
