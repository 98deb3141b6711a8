"""A model's files in the mount: its archives, their checksums, and its own files in their directories."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from bentofs.mount.view.nodes import (
    Attributes,
    File,
    Folder,
    Item,
    Node,
    Subject,
    file_attributes,
    file_item,
    folder_attributes,
    folder_item,
)
from bentofs.store.archives.archives import Archives
from bentofs.store.archives.sums import open_sums, sums_length
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import NotFoundError, SourceChangedError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.model import Model
from bentofs.store.storage.base import Entry
from bentofs.store.util.clock import SECOND_NS


@dataclass(frozen=True)
class _MadeFile(File):
    """A file that is made from a whole model."""

    store: ModelStore
    archives: Archives
    path: str
    model: Model

    @property
    def generation(self) -> Hashable:
        return self.model.generation, self.archives.revision

    @property
    def look(self) -> int:
        return self.model.look

    def renewed(self) -> File:
        return replace(self, model=self.store.model(self.model.tag, max_age=0))

    def _attributes(self, size: int) -> Attributes:
        return file_attributes(self.path, size, self.model.mtime * SECOND_NS, self.model.newest_ctime_ns)


@dataclass(frozen=True)
class ArchiveFile(_MadeFile):
    """An archive: one model in one format."""

    format: Format

    @property
    def kind(self) -> str:
        return self.format.name

    def bytes_name(self) -> str:
        return f"{self.archives.bytes_name(self.model, self.format)}/{self.archives.revision}"

    def sha256(self) -> str | None:
        return self.archives.known_sha256(self.model, self.format)

    def is_measured(self) -> bool:
        return self.archives.is_length_known(self.model, self.format)

    def attributes(self) -> Attributes:
        return self._attributes(self.archives.length(self.model, self.format))

    def open(self) -> Piece:
        return self.archives.open(self.model, self.format)

    def subject(self) -> Subject:
        return Subject(self.model, format=self.format)


@dataclass(frozen=True)
class ChecksumFile(_MadeFile):
    """Checksums in the format of coreutils' sha256sum. The length is known; the sums are computed at the first read."""

    kind = "checksums"
    formats: Sequence[Format]

    def bytes_name(self) -> str:
        return "sums/" + "/".join(self.archives.bytes_name(self.model, kind) for kind in self.formats)

    def attributes(self) -> Attributes:
        return self._attributes(sums_length(self.model.tag, self.formats))

    def open(self) -> Piece:
        return open_sums(self.archives, self.model, self.formats)


class ModelFolder(Folder):
    """A directory of a model, or the model's own directory."""

    def __init__(self, store: ModelStore, archives: Archives, path: str, model: Model, below: str = "") -> None:
        """`path`: in the mount; `below`: in the model, empty for the model's own directory."""
        self._store = store
        self._archives = archives
        self._path = path
        self._model = model
        self._below = below

    def attributes(self) -> Attributes:
        folders = self._model.entries.folders_in(self._below)
        mtime_ns = self._model.mtime * SECOND_NS
        # With other times, the model would count as one that BentoML is still saving (`store.catalog.completeness`).
        ctime_ns = max(self._model.newest_ctime_ns, mtime_ns + 1)
        return folder_attributes(self._path, folders, mtime_ns, ctime_ns)

    def items(self) -> list[Item]:
        return [
            folder_item(self._path, name) if is_folder else file_item(self._path, name)
            for name, is_folder in self._model.entries.children(self._below)
        ]

    def find_all(self, names: Sequence[str]) -> Iterator[Node | None]:
        """Yield the entries. A listing asks in the order of the model's entries."""
        below = f"{self._below}/" if self._below else ""
        entries = self._model.entries.find_all(below + name for name in names)
        return (self._node(name, entry) for name, entry in zip(names, entries, strict=True))

    def child(self, name: str) -> Node:
        node = self._node(name, self._model.entries.find(f"{self._below}/{name}" if self._below else name))
        if node is None:
            raise NotFoundError(f"{self._path}/{name} is not there")
        return node

    def _node(self, name: str, entry: Entry | None) -> Node | None:
        path = f"{self._path}/{name}"
        if entry is None:
            return None
        if entry.is_folder:
            return ModelFolder(self._store, self._archives, path, self._model, entry.path)
        return _ModelFile(self._store, self._archives, path, self._model, entry)

    def subject(self) -> Subject:
        return Subject(self._model)


class _ModelFile(File):
    """A file of a model."""

    kind = "files"

    def __init__(
        self,
        store: ModelStore,
        archives: Archives,
        path: str,
        model: Model,
        entry: Entry,
        piece: Piece | None = None,
    ) -> None:
        """`piece`: the file's bytes, if it is open already."""
        self._store = store
        self._archives = archives
        self._path = path
        self._model = model
        self._entry = entry
        self._piece = piece

    @property
    def generation(self) -> Hashable:
        identity = self._entry.identity
        return b"%d:%d:%d:%d:%d" % identity if identity else None  # short: there is one for each name in a cache

    @property
    def look(self) -> int:
        return self._model.look

    def bytes_name(self) -> str:
        return f"file/{self._entry.identity}"

    def attributes(self) -> Attributes:
        identity = self._entry.identity
        if identity is None:
            raise NotFoundError(f"{self._path} is a directory")
        return file_attributes(
            self._path, identity.size, identity.mtime_ns, identity.ctime_ns, executable=self._entry.executable
        )

    def renewed(self) -> File:
        """Look at this file only: a new look at the whole model for each of its files would be slow."""
        try:
            piece = self._archives.open_file(self._entry)
        except SourceChangedError:
            model = self._store.model(self._model.tag, max_age=0)
            entry = model.entries.find(self._entry.path)
            if entry is None or entry.is_folder:
                raise NotFoundError(f"{self._path} is not there") from None
            return _ModelFile(self._store, self._archives, self._path, model, entry)
        return _ModelFile(self._store, self._archives, self._path, self._model, self._entry, piece)

    def open(self) -> Piece:
        return self._piece or self._archives.open_file(self._entry)

    def subject(self) -> Subject:
        return Subject(self._model, entry=self._entry)
