"""A store in a bucket, or in a folder of any file system that fsspec knows.

The layout is BentoML's, with keys for paths. Folders are what keys have in common; modes, empty folders and CRC-32s
come from a model's manifest (`store.storage.manifest`), without which files are 0644. A name is listed with everything
below it in one go; listings are believed for `ttl` seconds. Files are pinned by ETag.

Threading: any thread. Nobody waits for the look of another one, except at the same name. Must not be made before a
fork.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from cachetools import LRUCache, TTLCache

from store.errors import (
    BadModelError,
    NotFoundError,
    SourceChangedError,
    StoreError,
    StoreUnreadableError,
    UnsafeMemberError,
)
from store.storage.base import Entry, Identity, Kind, Status, Usage
from store.storage.manifest import MAX_MANIFEST, FileNote, Manifest, manifest_key
from store.storage.objects import ChangedObjectError, Listing, MissingObjectError, ObjectInfo, Objects
from store.storage.patience import Patience
from store.storage.readahead import Pin, ReadAhead
from store.text import printable

log = logging.getLogger(__name__)

DEFAULT_TTL = 10.0  # seconds
DEFAULT_CACHE_SIZE = 32 << 20  # bytes
DEFAULT_PATIENCE = 30.0  # seconds
_OBJECTS_KEPT = 300_000  # in listings, at about 300 bytes each
_OBJECTS_OF_NAME = 1_000_000  # more than that is no model's
_PINS_KEPT = 200_000
_SMALL_KEPT = 32 << 20  # bytes of small files,
_LARGEST_SMALL = _SMALL_KEPT // 16  # of which none is larger than this
_FEW = 8  # names that are listed one by one
_LISTERS = 8
_READERS = 16  # of small files
_ROOM = Usage(1 << 20, 4096, 1 << 40, 1 << 40, 1 << 40, 1 << 30, 1 << 30, 255)  # nobody knows: much

_T = TypeVar("_T")


@dataclass(eq=False)
class _Name:
    """All objects below one name, in the order of their keys."""

    objects: list[ObjectInfo]
    identity: Identity
    keys: list[str] = field(default_factory=list)

    def below(self, prefix: str) -> list[ObjectInfo]:
        """Those whose keys begin with `prefix`."""
        start = bisect_left(self.keys, prefix)
        end = bisect_left(self.keys, prefix + "\U0010ffff", start)
        return self.objects[start:end]

    def get(self, key: str) -> ObjectInfo | None:
        at = bisect_left(self.keys, key)
        return self.objects[at] if at < len(self.keys) and self.keys[at] == key else None


@dataclass(eq=False)
class _Root:
    """What lies at the top."""

    folders: list[str]
    files: dict[str, ObjectInfo]
    identity: Identity


class RemoteStorage:
    """A store of objects."""

    commits_by_model_yaml = True

    def __init__(
        self,
        objects: Objects,
        patience: Patience,
        *,
        ttl: float = DEFAULT_TTL,
        cache_size: int = DEFAULT_CACHE_SIZE,
    ) -> None:
        """`ttl`: seconds for which a listing is believed; `cache_size`: bytes of memory for what is read."""
        self.objects = objects
        self.patience = patience
        self._device = _number(objects.location)
        self._lock = threading.Lock()  # guards what follows, never held while asking
        self._names: TTLCache[str, _Name] = TTLCache(_OBJECTS_KEPT, ttl, getsizeof=_weight)
        self._roots: TTLCache[str, _Root] = TTLCache(1, ttl)
        self._turns: dict[str, threading.Lock] = {}
        self._pins: LRUCache[Identity, Pin] = LRUCache(_PINS_KEPT)
        self._small: LRUCache[tuple[str, str], bytes] = LRUCache(
            _SMALL_KEPT, getsizeof=lambda content: len(content) + 1
        )
        self._read_ahead = ReadAhead(self._fetch, cache_size)

    @property
    def location(self) -> str:
        return self.objects.location

    def list_folder(self, path: str) -> list[tuple[str, Kind]]:
        if not path:
            root = self._root()
            return [(name, Kind.FOLDER) for name in root.folders] + [(name, Kind.FILE) for name in root.files]
        below = self._name_of(path).below(f"{path}/")
        if not below:
            raise self._missing(path)
        kinds: dict[str, Kind] = {}
        for found in below:
            name, slash, _ = found.key[len(path) + 1 :].partition("/")
            if name:
                kinds[name] = Kind.FOLDER if slash else kinds.get(name, Kind.FILE)
        return list(kinds.items())

    def status(self, path: str) -> Status:
        if not path:
            return Status(Kind.FOLDER, True, self._root().identity)
        name = self._name_of(path)
        if "/" not in path:
            return Status(Kind.FOLDER, True, name.identity)
        found = name.get(path)
        if found is not None:
            return Status(Kind.FILE, False, self._identity(found))
        below = name.below(f"{path}/")
        if not below:
            raise self._missing(path)
        return Status(Kind.FOLDER, True, self._folder_identity(path, [below[0].key], below))

    def statuses(self, folder: str, paths: Sequence[str]) -> list[Status | StoreError]:
        looks: list[Status | StoreError] = []
        self.status(folder)
        for path in paths:
            try:
                looks.append(self.status(f"{folder}/{path}"))
            except StoreError as error:
                looks.append(error)
        return looks

    def read_small(self, path: str, limit: int) -> bytes:
        try:
            return self._read_small(path, limit)
        except SourceChangedError:  # since it was listed
            return self._read_small(path, limit)

    def walk(self, path: str) -> tuple[list[Entry], int]:
        found = self._name_of(path).below(f"{path}/")
        if not found:
            raise self._missing(path)
        manifest = self._manifest(path)
        begin = len(path) + 1
        folders = set(manifest.folders)
        files: dict[str, ObjectInfo] = {}
        for info in found:
            below = info.key[begin:]
            parts = below.split("/")
            if any(part in (".", "..") for part in parts) or "" in parts[:-1] or "\0" in below:
                raise UnsafeMemberError(f"{self._show(info.key)} is no name for a file")
            if below.endswith("/"):  # what some tools make to show that there is a folder
                folders.add(below[:-1])
            elif below:
                files[below] = info
        for below in [*files, *folders]:
            while below := below.rpartition("/")[0]:
                if below in folders:
                    break
                folders.add(below)
        both = folders & files.keys()
        if both:
            raise BadModelError(f"{self._show(f'{path}/{min(both)}')} is a file, and a folder as well")
        entries = [Entry(below, True, True, None, f"{path}/{below}") for below in folders if below]
        entries += [self._entry(below, info, manifest) for below, info in files.items()]
        self._pin(tuple(info for _, info in sorted(files.items())))
        return entries, max(info.mtime_ns for info in found)

    def open_file(self, source: str, identity: Identity) -> RemoteFile:
        with self._lock:
            pin = self._pins.get(identity)
        if pin is None:
            found = self._name_of(source).get(source)
            if found is None or self._identity(found) != identity:
                raise SourceChangedError(f"{self._show(source)} was changed, replaced or removed")
            pin = Pin((found,), 0)
            with self._lock:
                self._pins[identity] = pin
        return RemoteFile(self._read_ahead, pin, self._show(source))

    def usage(self) -> Usage:
        return _ROOM

    def prepare(self, names: Sequence[str]) -> None:
        with self._lock:
            unknown = [name for name in names if name not in self._names]
        if len(unknown) <= 1:
            return
        groups = [(f"{name}/", [name]) for name in unknown] if len(unknown) <= _FEW else self._groups(unknown)
        with ThreadPoolExecutor(_LISTERS, thread_name_prefix="listing") as listers:
            for done in [listers.submit(self._list_group, *group) for group in groups]:
                try:
                    done.result()
                except StoreError as error:  # whoever asks for one of these names is told again
                    log.info("%s", error)

    def prepare_models(self, paths: Sequence[str], file: str) -> None:
        def read(path: str) -> None:
            try:
                self._read_small(f"{path}/{file}", _LARGEST_SMALL)
                self._manifest(path)
            except StoreError as error:  # whoever asks for it is told again
                log.info("%s", error)

        with ThreadPoolExecutor(_READERS, thread_name_prefix="small") as readers:
            list(readers.map(read, paths))

    def expire(self, name: str) -> None:
        """Believe no listing of a name any more, nor which names there are."""
        with self._lock:
            self._names.pop(name, None)
            self._roots.clear()

    def notes(self, path: str) -> dict[str, FileNote]:
        """What the manifest says of the files of a model as they are, by path in the model."""
        manifest, begin = self._manifest(path), len(path) + 1
        etags = {info.key[begin:]: info.etag for info in self._name_of(path).below(f"{path}/")}
        return {below: note for below, note in manifest.files.items() if etags.get(below) == note.etag}

    def list_now(self, prefix: str) -> list[ObjectInfo]:
        """What has a key that begins with `prefix`, whatever is believed of it."""
        return [info for page in self._pages(prefix) for info in page]

    def check(self) -> None:
        """Raises StoreUnreadableError, StoreDeniedError: the store cannot be listed."""
        self._root()

    def _groups(self, names: list[str]) -> list[tuple[str, list[str]]]:
        """Names that are listed together, by what their keys begin with. Not by ranges of keys: not every server keeps
        to the order of keys."""
        if not self.objects.splits:
            return [("", names)]
        length = len(os.path.commonprefix(names)) + 1  # noqa: RUF071 - characters are meant
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(name[:length], []).append(name)
        return [(f"{group[0]}/" if len(group) == 1 else begin, group) for begin, group in groups.items()]

    def _list_group(self, begin: str, names: list[str]) -> None:
        """List all names of a group, among which there may be others."""
        found: dict[str, list[ObjectInfo]] = {name: [] for name in names}
        count = 0
        for page in self._pages(begin):
            for info in page:
                name, slash, _ = info.key.partition("/")
                if slash and name in found:
                    found[name].append(info)
            count += len(page)
            if count > _OBJECTS_KEPT:  # too much to know at once: each one when it is asked for
                return
        for name, below in found.items():
            self._keep(name, below)

    def _pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        shown = self._show(prefix)
        more = ""
        while True:

            def ask(more: str = more) -> Listing:
                return self.objects.list_objects(prefix, more=more)

            try:
                page = self.patience.call(shown, ask)
            except MissingObjectError:  # where folders are real
                return
            yield page.objects
            if not page.more:
                return
            more = page.more

    def _name_of(self, path: str) -> _Name:
        """The listing of the name that a path lies in."""
        name = path.partition("/")[0]
        with self._lock:
            known = self._names.get(name)
        if known is None:
            with self._turn(name):
                with self._lock:
                    known = self._names.get(name)
                if known is None:
                    objects: list[ObjectInfo] = []
                    for page in self._pages(f"{name}/"):
                        objects += page
                        if len(objects) > _OBJECTS_OF_NAME:
                            raise BadModelError(f"{self._show(name)} holds more than {_OBJECTS_OF_NAME:,} objects")
                    known = self._keep(name, objects)
        if not known.objects:
            raise self._missing(name)
        return known

    def _keep(self, name: str, objects: list[ObjectInfo]) -> _Name:
        objects.sort()
        kept = _Name(objects, self._folder_identity(name, objects, objects), [info.key for info in objects])
        with self._lock:
            self._names[name] = kept
        return kept

    def _root(self) -> _Root:
        with self._lock:
            known = self._roots.get("")
        if known is not None:
            return known
        with self._turn(""):
            with self._lock:
                known = self._roots.get("")
            if known is not None:
                return known
            folders: list[str] = []
            files: list[ObjectInfo] = []
            more = ""
            while True:

                def ask(more: str = more) -> Listing:
                    return self.objects.list_folder("", more=more)

                try:
                    page = self.patience.call(self.location, ask)
                except MissingObjectError:
                    raise StoreUnreadableError(f"there is no model store at {self.location}") from None
                folders += page.folders
                files += page.objects
                more = page.more
                if not more:
                    break
            named = {info.key: info for info in files if info.key and not info.key.endswith("/")}
            root = _Root(folders, named, self._folder_identity("", [*folders, *named], files))
            with self._lock:
                self._roots[""] = root
            return root

    def _read_small(self, path: str, limit: int) -> bytes:
        name = self._name_of(path)
        found = name.get(path)
        if found is None:
            if name.below(f"{path}/"):
                raise BadModelError(f"{self._show(path)} is not a regular file")
            raise self._missing(path)
        if found.size > limit:
            raise BadModelError(f"{self._show(path)} is larger than {limit:,} bytes")
        if not found.size:
            return b""
        key = (found.key, found.etag)
        with self._lock:
            content = self._small.get(key) if found.etag else None
        if content is None:
            content = self._fetch(found, 0, found.size)
            if len(content) <= _LARGEST_SMALL:
                with self._lock:
                    self._small[key] = content
        return content

    def _manifest(self, path: str) -> Manifest:
        name, _, version = path.partition("/")
        key = manifest_key(name, version)
        try:
            return Manifest.decode(self.read_small(key, MAX_MANIFEST))
        except NotFoundError:
            return Manifest()
        except BadModelError as error:
            raise BadModelError(f"{self._show(key)} cannot be used: {error}") from None

    def _entry(self, path: str, info: ObjectInfo, manifest: Manifest) -> Entry:
        note = manifest.files.get(path)
        if note is None or note.etag != info.etag:
            return Entry(path, False, False, self._identity(info), info.key)
        return Entry(path, False, note.executable, self._identity(info), info.key, note.crc32)

    def _pin(self, files: tuple[ObjectInfo, ...]) -> None:
        with self._lock:
            first = self._pins.get(self._identity(files[0])) if files else None
            if first is not None and first.files == files:
                return
            for index, info in enumerate(files):
                self._pins[self._identity(info)] = Pin(files, index)

    def _fetch(self, info: ObjectInfo, start: int, end: int) -> bytes:
        shown = self._show(info.key)
        try:
            return self.patience.call(shown, lambda: self.objects.read(info, start, end))
        except (MissingObjectError, ChangedObjectError) as error:
            with self._lock:
                self._pins.pop(self._identity(info), None)
                self._names.pop(info.key.partition("/")[0], None)
            done = "gone" if isinstance(error, MissingObjectError) else "replaced"
            raise SourceChangedError(f"{shown} was {done} while it was read") from None

    def _identity(self, info: ObjectInfo) -> Identity:
        number = _number(f"{info.key}\0{info.etag}")
        return Identity(self._device, number, info.size, info.mtime_ns, info.mtime_ns)

    def _folder_identity(self, path: str, content: Sequence[object], files: Sequence[ObjectInfo]) -> Identity:
        mtime_ns = max((info.mtime_ns for info in files), default=0)
        return Identity(self._device, hash((path, tuple(content))), 0, mtime_ns, mtime_ns)

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """Within this, no other thread is at the same name."""
        with self._lock:
            turn = self._turns.setdefault(name, threading.Lock())
        try:
            with turn:
                yield
        finally:
            with self._lock:
                self._turns.pop(name, None)

    def _missing(self, path: str) -> NotFoundError:
        return NotFoundError(f"{self._show(path)} is not there")

    def _show(self, path: str) -> str:
        return printable(f"{self.location}/{path}")


class RemoteFile:
    """A file that answers only while it is what it was when it was pinned."""

    __slots__ = ("_name", "_pin", "_read_ahead")

    def __init__(self, read_ahead: ReadAhead, pin: Pin, name: str) -> None:
        self._read_ahead = read_ahead
        self._pin = pin
        self._name = name

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        if offset + sum(len(view) for view in views) > self._pin.object.size:
            raise SourceChangedError(f"{self._name} is shorter than was asked for")
        self._read_ahead.read_into(self._pin, views, offset)


def _number(text: str) -> int:
    """A number that stands for a text, the same in every process; 63 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "little") >> 1


def _weight(name: _Name) -> int:
    return min(len(name.objects) + 1, _OBJECTS_KEPT)
