"""The tree of the file system: the directory `models/` of a mount, with the same names, sizes and bytes.

`latest` and `latest.zip` are links in a mount. Here they are other names of what they lead to, and not listed: a
recursive copy takes each model once.

Nothing is kept here: the catalogue (`store.catalog.catalog`) caches.
Threading: a node may be used from any thread.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bentofs.store.archives.sums import open_sums, sums_length
from bentofs.store.catalog.scanner import LATEST
from bentofs.store.errors import NotFoundError, SourceChangedError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.registry import Format
from bentofs.store.integrity.sha256sums import ALL_SUMS, SUFFIX
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag, is_tag_part
from bentofs.store.storage.base import Entry
from bentofs.store.util.clock import SECOND_NS
from bentofs.store.util.display import printable
from bentofs.store.wiring.library import Library

FILES = "files"


@dataclass(frozen=True)
class Folder:
    """A directory."""

    path: str
    children: Callable[[], Iterator[Node]]


@dataclass(frozen=True)
class File:
    """A file of one model."""

    library: Library
    path: str
    model: Model

    @property
    def mtime_ns(self) -> int:
        """Return the time of the last change."""
        return self.model.mtime * SECOND_NS

    @property
    @abstractmethod
    def etag(self) -> str:
        """Return a text that changes with the bytes, and is the same in other processes."""

    @property
    def is_measured(self) -> bool:
        """True if `size` needs no compressing."""
        return True

    @abstractmethod
    def size(self) -> int:
        """Return the exact length in bytes."""

    @abstractmethod
    def open(self) -> Piece:
        """Open the bytes that the store has now.

        Raises:
            NotFoundError: the model has gone.
            SourceChangedError, StoreUnreadableError: they cannot be read.
        """


Node = Folder | File


@dataclass(frozen=True)
class _ArchiveFile(File):
    kind: Format

    @property
    def etag(self) -> str:
        return self.library.archives.bytes_name(self.model, self.kind)

    @property
    def is_measured(self) -> bool:
        return self.library.archives.is_length_known(self.model, self.kind)

    def size(self) -> int:
        return self.library.archives.length(self.model, self.kind)

    def open(self) -> Piece:
        return self.library.archives.open(self.library.models.model(self.model.tag, max_age=0), self.kind)


@dataclass(frozen=True)
class _SumsFile(File):
    formats: Sequence[Format]

    @property
    def etag(self) -> str:
        return " ".join(self.library.archives.bytes_name(self.model, kind) for kind in self.formats)

    def size(self) -> int:
        return sums_length(self.model.tag, self.formats)

    def open(self) -> Piece:
        model = self.library.models.model(self.model.tag, max_age=0)
        return open_sums(self.library.archives, model, self.formats)


@dataclass(frozen=True)
class _ModelFile(File):
    entry: Entry

    @property
    def mtime_ns(self) -> int:
        return self.entry.identity.mtime_ns if self.entry.identity else super().mtime_ns

    @property
    def etag(self) -> str:
        return "-".join(f"{part:x}" for part in self.entry.identity or ())

    def size(self) -> int:
        return self.entry.size

    def open(self) -> Piece:
        try:
            return self.library.archives.open_file(self.entry)
        except SourceChangedError:  # since the last look, which may be some seconds old
            model = self.library.models.model(self.model.tag, max_age=0)
            return self.library.archives.open_file(_entry_at(model, self.entry.path))


class Tree:
    """The models of one store, by path: `NAME/VERSION/...`, without slashes at the ends; "" is the root."""

    def __init__(self, library: Library, formats: Sequence[Format]) -> None:
        self._library = library
        self._models = library.models
        self._formats = tuple(formats)

    def lookup(self, path: str) -> Node:
        """Return the node at a path.

        Raises:
            NotFoundError: there is none.
            StoreError: the store cannot be read.
        """
        name, _, rest = path.partition("/")
        if not name:
            return Folder(path, lambda: (self._name_folder(each, each) for each in self._models.names()))
        if not is_tag_part(name):
            raise NotFoundError(f"{printable(name)!r} is not the name of a model")
        below, _, rest = rest.partition("/")
        if not below:
            self._models.version_count(name)  # raises NotFoundError if there is none
            return self._name_folder(path, name)
        return self._in_version(path, *self._version(name, below, rest))

    def _version(self, name: str, below: str, rest: str) -> tuple[Model, str]:
        """Return the model that the first two names of a path mean, and the path in its directory."""
        if is_tag_part(below):
            try:
                return self._models.model(Tag(name, below)), rest
            except NotFoundError:
                if not below.startswith(LATEST):
                    raise
        suffix = below.removeprefix(LATEST)
        latest = self._models.latest(name) if below.startswith(LATEST) else None
        is_archive = suffix in [kind.suffix for kind in self._formats]
        if latest is None or (suffix and (rest or not is_archive)):
            raise NotFoundError(f"{name} has no version {printable(below)!r}")
        tag = Tag(name, latest)
        return self._models.model(tag), tag.stem + suffix if suffix else rest

    def _name_folder(self, path: str, name: str) -> Folder:
        return Folder(path, lambda: self._versions(path, name))

    def _versions(self, path: str, name: str) -> Iterator[Node]:
        for version in self._models.versions(name):
            yield self._version_folder(f"{path}/{version}", Tag(name, version))

    def _version_folder(self, path: str, tag: Tag) -> Folder:
        return Folder(path, lambda: self._files(path, self._models.model(tag)))

    def _files(self, path: str, model: Model) -> Iterator[Node]:
        yield _SumsFile(self._library, f"{path}/{ALL_SUMS}", model, self._formats)
        yield self._model_folder(f"{path}/{FILES}", model, "")
        for kind in self._formats:
            archive = f"{path}/{model.tag.stem}{kind.suffix}"
            yield _ArchiveFile(self._library, archive, model, kind)
            yield _SumsFile(self._library, f"{archive}{SUFFIX}", model, (kind,))

    def _in_version(self, path: str, model: Model, rest: str) -> Node:
        """Return the node at a path in a model's directory."""
        if not rest:
            return self._version_folder(path, model.tag)
        first, _, rest = rest.partition("/")
        if first == FILES:
            entry = _entry_at(model, rest) if rest else None
            if entry is None or entry.is_folder:
                return self._model_folder(path, model, rest)
            return _ModelFile(self._library, path, model, entry)
        if not rest and first == ALL_SUMS:
            return _SumsFile(self._library, path, model, self._formats)
        for kind in self._formats if not rest else ():
            archive = model.tag.stem + kind.suffix
            if first == archive:
                return _ArchiveFile(self._library, path, model, kind)
            if first == archive + SUFFIX:
                return _SumsFile(self._library, path, model, (kind,))
        raise NotFoundError(f"{printable(path)} is not there")

    def _model_folder(self, path: str, model: Model, below: str) -> Folder:
        return Folder(path, lambda: self._entries(path, model, below))

    def _entries(self, path: str, model: Model, below: str) -> Iterator[Node]:
        for name, is_folder in model.entries.children(below):
            inner = f"{below}/{name}" if below else name
            if is_folder:
                yield self._model_folder(f"{path}/{name}", model, inner)
            else:
                yield _ModelFile(self._library, f"{path}/{name}", model, _entry_at(model, inner))


def _entry_at(model: Model, path: str) -> Entry:
    entry = model.entries.find(path)
    if entry is None:
        raise NotFoundError(f"{model.tag} has no file {printable(path)}")
    return entry
