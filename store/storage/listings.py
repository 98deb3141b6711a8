"""Listings of an object store: one for each name with everything below it, and one for the top level.

Listings are cached for some seconds (the TTL). Threading: any thread. A thread waits for another thread's request only
if both ask for the same name.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from cachetools import TTLCache

from bentofs.store.clients.objects import Listing, ObjectInfo, Objects
from bentofs.store.errors import BadModelError, MissingStoreError, NotFoundError, RemoteNotFoundError, StoreError
from bentofs.store.storage.base import Identity
from bentofs.store.util.display import printable
from bentofs.store.util.keyed_lock import KeyedLock

log = logging.getLogger(__name__)

_OBJECTS_KEPT = 300_000  # in all listings, at about 300 bytes each
_OBJECTS_OF_NAME = 1_000_000  # no real model has more
_FEW = 8  # up to so many names are listed one by one
_LISTERS = 16


@dataclass(eq=False)
class NameListing:
    """All objects below one name, sorted by key."""

    objects: list[ObjectInfo]
    identity: Identity
    keys: list[str] = field(default_factory=list)

    def below(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects whose keys begin with `prefix`."""
        start = bisect_left(self.keys, prefix)
        end = bisect_left(self.keys, prefix + "\U0010ffff", start)
        return self.objects[start:end]

    def get(self, key: str) -> ObjectInfo | None:
        at = bisect_left(self.keys, key)
        return self.objects[at] if at < len(self.keys) and self.keys[at] == key else None


@dataclass(eq=False)
class RootListing:
    """The listing of the top level."""

    folders: list[str]
    files: dict[str, ObjectInfo]
    identity: Identity


class Listings:
    """The listings of one store."""

    def __init__(self, objects: Objects, ttl: float) -> None:
        """`ttl`: seconds for which a listing is cached."""
        self._objects = objects
        self._ttl = ttl
        self._device = _number(objects.location)
        self._lock = threading.Lock()  # guards the fields below; never held during a request
        self._names: TTLCache[str, NameListing] = TTLCache(_OBJECTS_KEPT, ttl, getsizeof=_weight)
        self._roots: TTLCache[str, RootListing] = TTLCache(1, ttl)
        self._turns = KeyedLock()
        # The prefixes of the names that were last listed together. Then the count of names that were listed alone, and
        # the start of that count.
        self._begins: set[str] = set()
        self._begin_length = 0
        self._alone = 0
        self._alone_since = -math.inf

    def of(self, path: str) -> NameListing:
        """Return the listing of the name that a path belongs to.

        Raises:
            NotFoundError: there are no objects below the name.
            BadModelError: there are more than any model has.
            StoreUnreadableError, StoreDeniedError: it cannot be listed.
        """
        name = path.partition("/")[0]
        with self._lock:
            known = self._names.get(name)
        if known is None:
            with self._turns.at(name):
                with self._lock:
                    known = self._names.get(name)
                if known is None:
                    known = self._list_with_others(name) or self._list(name)
        if not known.objects:
            raise self.missing(name)
        return known

    def root(self) -> RootListing:
        """Return the listing of the top level.

        Raises:
            StoreUnreadableError, StoreDeniedError: the store cannot be listed.
        """
        with self._lock:
            known = self._roots.get("")
        if known is not None:
            return known
        with self._turns.at(""):
            with self._lock:
                known = self._roots.get("")
            if known is not None:
                return known
            folders: list[str] = []
            files: list[ObjectInfo] = []
            try:
                for page in _all_pages(partial(self._objects.list_folder, "")):
                    folders += page.folders
                    files += page.objects
            except RemoteNotFoundError:
                raise MissingStoreError(f"there is no model store at {self._objects.location}") from None
            named = {info.key: info for info in files if info.key and not info.key.endswith("/")}
            root = RootListing(folders, named, self.folder_identity("", [*folders, *named], files))
            with self._lock:
                self._roots[""] = root
            return root

    def list_now(self, prefix: str) -> list[ObjectInfo]:
        """List the objects whose keys begin with `prefix`, without the cache."""
        return [info for page in self._pages(prefix) for info in page]

    def prepare(self, names: Sequence[str]) -> None:
        """Do what `Storage.prepare` describes."""
        with self._lock:
            unknown = [name for name in names if name not in self._names]
        if len(unknown) <= 1:
            return
        if len(unknown) <= _FEW:
            groups = [(f"{name}/", [name]) for name in unknown]
        else:
            groups = self._groups(unknown)
            with self._lock:
                self._begins = {begin for begin, group in groups if len(group) > 1}
                self._begin_length = max(map(len, self._begins), default=0)
        with ThreadPoolExecutor(_LISTERS, thread_name_prefix="listing") as listers:
            for done in [listers.submit(self._list_group, *group) for group in groups]:
                try:
                    done.result()
                except StoreError as error:  # raised again when one of these names is asked for
                    log.info("%s", error)

    def expire(self, name: str) -> None:
        """Drop the cached listing of a name, and of the top level."""
        with self._lock:
            self._names.pop(name, None)
            self._roots.clear()

    def changed(self, info: ObjectInfo) -> None:
        """Drop the cached listing of an object's name: the object differs from its listing."""
        with self._lock:
            self._names.pop(info.key.partition("/")[0], None)

    def identity(self, info: ObjectInfo) -> Identity:
        """Return the identity of a file: it changes when the content does."""
        number = _number(f"{info.key}\0{info.etag}")
        return Identity(self._device, number, info.size, info.mtime_ns, info.mtime_ns)

    def folder_identity(self, path: str, content: Sequence[object], files: Sequence[ObjectInfo]) -> Identity:
        """Return the identity of a directory. It depends on `content`; its time is the newest time of `files`."""
        mtime_ns = max([info.mtime_ns for info in files], default=0)
        return Identity(self._device, hash((path, tuple(content))), 0, mtime_ns, mtime_ns)

    def missing(self, path: str) -> NotFoundError:
        """Return the error for a missing path."""
        return NotFoundError(f"{self.show(path)} is not there")

    def show(self, path: str) -> str:
        """Return a path as users see it."""
        return printable(f"{self._objects.location}/{path}")

    def _groups(self, names: list[str]) -> list[tuple[str, list[str]]]:
        """Group the names that are listed together, by key prefix. Key ranges would not do: not every server lists in
        the order of keys."""
        if not self._objects.splits:
            return [("", names)]
        length = len(os.path.commonprefix(names)) + 1  # noqa: RUF071 - characters are meant
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(name[:length], []).append(name)
        return [(f"{group[0]}/" if len(group) == 1 else begin, group) for begin, group in groups.items()]

    def _list(self, name: str) -> NameListing:
        objects: list[ObjectInfo] = []
        for page in self._pages(f"{name}/"):
            objects += page
            if len(objects) > _OBJECTS_OF_NAME:
                raise BadModelError(f"{self.show(name)} holds more than {_OBJECTS_OF_NAME:,} objects")
        return self._keep(name, objects)

    def _list_with_others(self, name: str) -> NameListing | None:
        """List a name together with its former group, if many names are asked for one by one. This happens when a walk
        through all names takes longer than the TTL. None: list the name alone."""
        now = time.monotonic()
        with self._lock:
            if now - self._alone_since > self._ttl:
                self._alone, self._alone_since = 0, now
            self._alone += 1
            begin = name[: self._begin_length]
            if self._alone <= _FEW or begin not in self._begins:
                return None
        is_done = self._list_group(begin, [name])
        with self._lock:
            if not is_done:
                self._begins.discard(begin)
            return self._names.get(name)

    def _list_group(self, begin: str, names: list[str]) -> bool:
        """List all names of a group, and the others with the same prefix: they may be asked for next. False: there are
        too many objects, and nothing is cached."""
        found: dict[str, list[ObjectInfo]] = {name: [] for name in names}
        count = 0
        for page in self._pages(begin):
            for info in page:
                name, slash, _ = info.key.partition("/")
                if slash:
                    found.setdefault(name, []).append(info)
            count += len(page)
            if count > _OBJECTS_KEPT:
                return False
        for name, below in found.items():
            self._keep(name, below)
        return True

    def _pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        try:
            for page in _all_pages(partial(self._objects.list_objects, prefix)):
                yield page.objects
        except RemoteNotFoundError:  # where directories are real
            return

    def _keep(self, name: str, objects: list[ObjectInfo]) -> NameListing:
        objects.sort()
        kept = NameListing(objects, self.folder_identity(name, objects, objects), [info.key for info in objects])
        with self._lock:
            self._names[name] = kept
        return kept


def _all_pages(ask: Callable[..., Listing]) -> Iterator[Listing]:
    page = ask()
    yield page
    while page.more:
        page = ask(more=page.more)
        yield page


def _number(text: str) -> int:
    """Return a 63-bit hash of a text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little") >> 1


def _weight(name: NameListing) -> int:
    return min(len(name.objects) + 1, _OBJECTS_KEPT)
