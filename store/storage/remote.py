"""A store in a bucket, or in a directory of any file system that fsspec supports.

The layout is BentoML's, with keys for paths. Directories are common prefixes of keys. Modes, empty directories and
CRC-32s come from a model's manifest (`store.storage.manifest`); without one, files are 0644. Names and stats come from
listings (`store.storage.listings`). Files are pinned by ETag.

Threading: any thread. Create it only after a fork.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import LRUCache

from bentofs.store.clients.objects import ObjectInfo, Objects, WritableObjects
from bentofs.store.errors import (
    BadModelError,
    ConditionFailedError,
    NotFoundError,
    RemoteNotFoundError,
    SourceChangedError,
    StoreError,
    StoreUnwritableError,
    UnsafeMemberError,
)
from bentofs.store.storage.base import Entry, Identity, Kind, Status, Totals, Usage
from bentofs.store.storage.conditional_writes import check_conditional_writes
from bentofs.store.storage.entries import Entries, EntriesBuilder
from bentofs.store.storage.listings import Listings, NameListing
from bentofs.store.storage.manifest import MAX_MANIFEST, FileNote, Manifest, manifest_key
from bentofs.store.storage.readahead import Pin, ReadAhead
from bentofs.store.storage.remote_defaults import DEFAULT_CACHE_SIZE, DEFAULT_TTL
from bentofs.store.util.names import local_name

log = logging.getLogger(__name__)

_PINS_KEPT = 200_000
_SMALL_KEPT = 32 << 20  # bytes of cached small files
_LARGEST_SMALL = _SMALL_KEPT // 16  # bytes of the largest one
_READERS = 16  # threads that read small files
_ROOM = Usage(1 << 20, 4096, 1 << 40, 1 << 40, 1 << 40, 1 << 30, 1 << 30, 255)  # unknown, so large


class RemoteStorage:
    """An object store."""

    folder = None
    has_deep_identities = True
    commits_by_model_yaml = True
    has_page_cache = False
    reads_ahead = True
    lists_without_requests = False

    def __init__(
        self,
        objects: Objects,
        *,
        ttl: float = DEFAULT_TTL,
        cache_size: int = DEFAULT_CACHE_SIZE,
    ) -> None:
        """`ttl`: seconds for which a listing is cached; `cache_size`: bytes of memory for read-ahead."""
        self.objects = objects
        self.listings = Listings(objects, ttl)
        self._lock = threading.Lock()  # guards the fields below; never held during a request
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
            root = self.listings.root()
            return [(name, Kind.FOLDER) for name in root.folders] + [(name, Kind.FILE) for name in root.files]
        below = self.listings.of(path).below(f"{path}/")
        if not below:
            raise self.listings.missing(path)
        kinds: dict[str, Kind] = {}
        for found in below:
            name, slash, _ = found.key[len(path) + 1 :].partition("/")
            if name:
                kinds[name] = Kind.FOLDER if slash else kinds.get(name, Kind.FILE)
        return list(kinds.items())

    def status(self, path: str) -> Status:
        if not path:
            return Status(Kind.FOLDER, True, self.listings.root().identity)
        return self._status(self.listings.of(path), path)

    def _status(self, name: NameListing, path: str) -> Status:
        if "/" not in path:
            return Status(Kind.FOLDER, True, name.identity)
        found = name.get(path)
        if found is not None:
            return Status(Kind.FILE, False, self.listings.identity(found))
        below = name.below(f"{path}/")
        if not below:
            raise self.listings.missing(path)
        return Status(Kind.FOLDER, True, self.listings.folder_identity(path, [below[0].key], below))

    @contextmanager
    def look_into(self, path: str) -> Iterator[RemoteFolder]:
        name = self.listings.of(path)
        yield RemoteFolder(self, path, name, self._status(name, path).identity)

    def read_small(self, path: str, limit: int) -> bytes:
        try:
            return self._read_small(path, limit)
        except SourceChangedError:  # changed since it was listed
            return self._read_small(path, limit)

    def walk(self, path: str) -> tuple[Entries, int]:
        manifest = self._manifest(path)
        files, folders, newest = self._content(path, manifest.folders)
        entries = EntriesBuilder(path)
        for below in folders:
            if below:
                entries.add(local_name(below), True, True, None, f"{path}/{below}")
        for below, info in files.items():
            entries.add(*self._entry(below, info, manifest))
        self._pin(tuple(info for _, info in sorted(files.items())))
        return entries.build(), newest

    def totals(self, path: str) -> Totals:
        files = self._content(path, ())[0].values()
        key = manifest_key(*path.split("/", 1))
        manifest = self.listings.of(key).get(key)
        identity = self.listings.identity(manifest) if manifest is not None else None
        return Totals(sum(info.size for info in files), len(files), identity)

    def is_unchanged(self, _path: str, _entries: Entries) -> bool:
        """Return False: only a listing can tell."""
        return False

    def open_file(self, source: str, identity: Identity) -> RemoteFile:
        with self._lock:
            pin = self._pins.get(identity)
        if pin is None:
            found = self.listings.of(source).get(source)
            if found is None or self.listings.identity(found) != identity:
                raise SourceChangedError(f"{self.listings.show(source)} was changed, replaced or removed")
            pin = Pin((found,), 0)
            with self._lock:
                self._pins[identity] = pin
        return RemoteFile(self._read_ahead, pin, self.listings.show(source))

    def read_whole(self, files: Iterable[tuple[str, Identity, memoryview]]) -> None:
        for source, identity, view in files:
            self.open_file(source, identity).read_into([view], 0)

    def usage(self) -> Usage:
        return _ROOM

    def writable(self) -> WritableObjects:
        """Return the objects, to write. Raises StoreUnwritableError: they can only be read."""
        if not isinstance(self.objects, WritableObjects):
            raise StoreUnwritableError(f"models can be imported into stores in S3, and {self.location} is none")
        return self.objects

    def check_writable(self) -> None:
        check_conditional_writes(self.writable())

    def prepare(self, names: Sequence[str]) -> None:
        self.listings.prepare(names)

    def prepare_models(self, paths: Sequence[str], files: Sequence[str]) -> None:
        def read(path: str) -> None:
            try:
                self._read_small(path, _LARGEST_SMALL)
            except StoreError as error:  # raised again when it is asked for
                log.info("%s", error)

        manifests = [manifest_key(*path.split("/", 1)) for path in paths]
        wanted = [*files, *(key for key in manifests if self._is_listed(key))]
        if wanted:
            with ThreadPoolExecutor(_READERS, thread_name_prefix="small") as readers:
                list(readers.map(read, wanted))

    def pins_content(self, path: str, identity: Identity, read_ns: int) -> bool:  # noqa: ARG002 - an ETag decides
        found = self.listings.of(path).get(path) if self.objects.has_etags else None
        return found is not None and bool(found.etag)

    def notes(self, path: str) -> dict[str, FileNote]:
        """Return the manifest's notes on the files of a model that are unchanged since, by entry path."""
        manifest, begin = self._manifest(path), len(path) + 1
        etags = {info.key[begin:]: info.etag for info in self.listings.of(path).below(f"{path}/")}
        return {local_name(below): note for below, note in manifest.files.items() if etags.get(below) == note.etag}

    def check(self) -> None:
        """Check that the store can be listed. Raises StoreUnreadableError, StoreDeniedError."""
        self.listings.root()

    def _read_small(self, path: str, limit: int) -> bytes:
        name = self.listings.of(path)
        found = name.get(path)
        if found is None:
            if name.below(f"{path}/"):
                raise BadModelError(f"{self.listings.show(path)} is not a regular file")
            raise self.listings.missing(path)
        if found.size > limit:
            raise BadModelError(f"{self.listings.show(path)} is larger than {limit:,} bytes")
        if not found.size:
            return b""
        key = (found.key, found.etag)
        with self._lock:
            content = self._small.get(key) if found.etag else None
        if content is None:
            content = bytes(self._fetch(found, 0, found.size))
            if len(content) <= _LARGEST_SMALL:
                with self._lock:
                    self._small[key] = content
        return content

    def _is_listed(self, key: str) -> bool:
        try:
            return self.listings.of(key).get(key) is not None
        except StoreError:  # raised again when it is asked for
            return False

    def _manifest(self, path: str) -> Manifest:
        name, _, version = path.partition("/")
        key = manifest_key(name, version)
        try:
            return Manifest.decode(self.read_small(key, MAX_MANIFEST))
        except NotFoundError:
            return Manifest()
        except BadModelError as error:
            raise BadModelError(f"{self.listings.show(key)} cannot be used: {error}") from None

    def _entry(self, path: str, info: ObjectInfo, manifest: Manifest) -> Entry:
        note = manifest.files.get(path)
        if note is None or note.etag != info.etag:
            return Entry(local_name(path), False, False, self.listings.identity(info), info.key)
        return Entry(local_name(path), False, note.executable, self.listings.identity(info), info.key, note.crc32)

    def _content(self, path: str, known: Iterable[str]) -> tuple[dict[str, ObjectInfo], set[str], int]:
        """Return the files and the directories below a model's directory, by their paths there, and the newest time of
        an object (ns). `known`: directories that hold no object. Raises what `walk` raises."""
        found = self.listings.of(path).below(f"{path}/")
        if not found:
            raise self.listings.missing(path)
        begin = len(path) + 1
        folders = set(known)
        files: dict[str, ObjectInfo] = {}
        for info in found:
            below = info.key[begin:]
            parts = below.split("/")
            if any(part in (".", "..") for part in parts) or "" in parts[:-1] or "\0" in below:
                raise UnsafeMemberError(f"{self.listings.show(info.key)} is not a name for a file")
            if below.endswith("/"):  # the marker of a directory that some tools create
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
            raise BadModelError(f"{self.listings.show(f'{path}/{min(both)}')} is a file, and a directory as well")
        return files, folders, max(info.mtime_ns for info in found)

    def _pin(self, files: tuple[ObjectInfo, ...]) -> None:
        with self._lock:
            first = self._pins.get(self.listings.identity(files[0])) if files else None
            if first is not None and first.files == files:
                return
            for index, info in enumerate(files):
                self._pins[self.listings.identity(info)] = Pin(files, index)

    def _fetch(self, info: ObjectInfo, start: int, end: int, into: bytearray | None = None) -> bytes | bytearray:
        shown = self.listings.show(info.key)
        try:
            return self.objects.read(info, start, end, into=into)
        except (RemoteNotFoundError, ConditionFailedError) as error:
            with self._lock:
                self._pins.pop(self.listings.identity(info), None)
            self.listings.changed(info)
            done = "gone" if isinstance(error, RemoteNotFoundError) else "replaced"
            raise SourceChangedError(f"{shown} was {done} while it was read") from None


@dataclass(frozen=True)
class RemoteFolder:
    """A directory whose listing is known."""

    storage: RemoteStorage
    path: str
    name: NameListing  # the listing that holds it
    identity: Identity

    def listing(self) -> list[tuple[str, Kind]]:
        return self.storage.list_folder(self.path)

    def statuses(self, paths: Sequence[str]) -> Sequence[Status | StoreError]:
        looks: list[Status | StoreError] = []
        for path in paths:
            try:
                looks.append(self.storage._status(self.name, f"{self.path}/{path}"))
            except StoreError as error:
                looks.append(error)
        return looks


class RemoteFile:
    """A file that can be read only while it has its pinned identity."""

    __slots__ = ("_name", "_pin", "_read_ahead")

    def __init__(self, read_ahead: ReadAhead, pin: Pin, name: str) -> None:
        self._read_ahead = read_ahead
        self._pin = pin
        self._name = name

    def descriptor(self) -> None:
        return None

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        if offset + sum(len(view) for view in views) > self._pin.object.size:
            raise SourceChangedError(f"{self._name} is shorter than was asked for")
        self._read_ahead.read_into(self._pin, views, offset)
