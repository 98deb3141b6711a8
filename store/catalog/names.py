"""Names: the directories of a store's names, each with the state of its versions.

A look at a name is cached for a moment. The known state helps to judge the next one (`store.catalog.scanner`).

Threading: any thread may call any method. No lock is held during a look. Two threads may look at the same name; the
last result is kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable

from bentofs.store.catalog.scanner import NameFolder, Scanner, Version, Warn, why_missing, why_none
from bentofs.store.errors import NotFoundError
from bentofs.store.model.tag import Tag, is_tag_part
from bentofs.store.storage.base import Identity, Kind, Storage
from bentofs.store.storage.manifest import is_ours
from bentofs.store.storage.timestamps import is_settled

REFRESH = 0.4  # seconds for which a look is cached


class Names:
    """The names of one store."""

    def __init__(self, storage: Storage, warn: Warn, gone: Callable[[Tag], None]) -> None:
        """`gone`: called with each version that has disappeared."""
        self._storage = storage
        self._warn = warn
        self._gone = gone
        self._scanner = Scanner(storage, warn)
        self._lock = threading.Lock()  # guards the fields below
        self._known: dict[str, NameFolder] = {}
        self._believed = REFRESH
        self._root: tuple[Identity, int, list[str]] | None = None  # wall clock of the look, in ns

    def all(self) -> list[str]:
        """Return the names of all directories that may hold models, sorted. They are not opened."""
        folder = self._storage.status("").identity
        kept = self._root
        if kept is not None and kept[0] == folder and is_settled(folder.ctime_ns, kept[1]):
            return kept[2]
        looked_at = time.time_ns()
        names = []
        for name, kind in self._storage.list_folder(""):
            if kind is Kind.FOLDER and is_tag_part(name):
                names.append(name)
            elif not is_ours(name):
                self._warn(name, f"{name!r} in the store is not a model's directory; it is left out")
        names.sort()
        self._root = (folder, looked_at, names)
        with self._lock:
            gone = [(name, self._known.pop(name)) for name in self._known.keys() - set(names)]
        for name, known in gone:
            self._forget(name, known.versions)
        return names

    def at(self, name: str) -> NameFolder:
        """Return the state of a name, cached or from a new look.

        Raises:
            NotFoundError: there is no such name.
            StoreUnreadableError: its directory may not be read.
        """
        known = self._known.get(name)
        if known is not None and time.monotonic() - known.seen < self._believed:
            return known
        if not is_tag_part(name):
            raise NotFoundError(f"'{name}' is not a model's name")
        try:
            fresh = self._scanner.look(name, known)
        except NotFoundError:
            with self._lock:
                known = self._known.pop(name, None)
            self._forget(name, known.versions if known is not None else ())
            raise NotFoundError(why_none(name, None, self._storage.location)) from None
        with self._lock:
            self._known[name] = fresh
        if known is not None:
            self._forget(name, known.versions.keys() - fresh.versions.keys())
        return fresh

    def version(self, tag: Tag) -> Version:
        """Return the state of a finished version. Raises NotFoundError if there is none, and the errors of `at`."""
        known = self.at(tag.name)
        version = known.finished.get(tag.version)
        if version is None:
            raise NotFoundError(why_missing(tag, known, self._storage.location))
        return version

    def latest(self, name: str, folder: NameFolder) -> str | None:
        """Return the version that the `latest` file of a name tells (`Scanner.latest`)."""
        return self._scanner.latest(name, folder)

    def believe(self, seconds: float) -> None:
        """Set for how many seconds a look at a name is cached."""
        self._believed = seconds

    def expire(self, name: str) -> None:
        """Force a new look at a name at its next use. The known state still helps to judge the new one."""
        with self._lock:
            known = self._known.get(name)
            if known is not None:
                known.seen = -math.inf

    def _forget(self, name: str, versions: Iterable[str]) -> None:
        for version in versions:
            self._gone(Tag(name, version))
