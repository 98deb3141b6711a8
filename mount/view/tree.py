"""The tree of a mount, path by path. Knows no FUSE.

Nothing is kept here: each access to a node asks the catalogue (`store.catalog.catalog`), which caches.
Threading: a node may be used from any thread.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bentofs.mount.view.by_label import BY_LABEL, ByLabel, Labels
from bentofs.mount.view.extended import ExtendedAttributes
from bentofs.mount.view.files import ArchiveFile, ChecksumFile, ModelFolder
from bentofs.mount.view.live import LiveFile, LiveSource
from bentofs.mount.view.nodes import (
    Attributes,
    Folder,
    Item,
    Link,
    Node,
    Subject,
    Text,
    file_item,
    folder_attributes,
    folder_item,
    found_by,
    link_item,
)
from bentofs.mount.view.own_names import OWN
from bentofs.mount.view.readme import Reader, readme
from bentofs.store.archives.archives import Archives
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.catalog.scanner import LATEST
from bentofs.store.errors import NotFoundError
from bentofs.store.formats.pieces import Literal
from bentofs.store.formats.write.registry import FOLDER, Format
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.sha256sums import ALL_SUMS, SUFFIX
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.util.clock import SECOND_NS

README = "README.txt"
INCOMING = "incoming"


class Tree:
    """The whole tree of a mount."""

    def __init__(
        self,
        store: ModelStore,
        archives: Archives,
        formats: Sequence[Format],
        *,
        has_incoming: bool = False,
        live: Mapping[str, LiveSource] | None = None,
        baseline: Baseline | None = None,
        by_label: bool = False,
        reader: Reader = Reader.MOUNT,
    ) -> None:
        """`has_incoming`: list `incoming/`. Its content is defined in `mount.incoming.namespace`. `live`: the files in
        `.bentofs/`, which is not listed. `baseline`: the recorded SHA-256s of models' files. `by_label`: list
        `by-label/`. `reader`: who reads README.txt."""
        self.store = store
        self.archives = archives
        self.formats = tuple(formats)
        # The links to a latest version and its archives, with the suffix of what they lead to.
        self.latest_suffixes = {LATEST + suffix: suffix for suffix in ("", *(kind.suffix for kind in formats))}
        self.extended = ExtendedAttributes(store, archives, baseline)
        self._has_incoming = has_incoming
        self._reader = reader
        self.mounted_ns = time.time_ns()
        top: dict[str, Callable[[], Node]] = {
            README: self._readme,
            "models": lambda: _Names(self, "/models", _VersionsOfName),
            "by-format": self._by_format,
        }
        self._has_labels = by_label
        if by_label:
            labels = Labels(store)
            top[BY_LABEL] = lambda: ByLabel(labels, self.mounted_ns)
        if has_incoming:
            top[INCOMING] = lambda: _Fixed(f"/{INCOMING}", self.mounted_ns, {})
        hidden = {OWN: self._own(live)} if live else {}
        self._root: Folder = _Fixed("/", self.mounted_ns, top, files=(README,), hidden=hidden)

    def lookup(self, path: str) -> Node:
        """Return the node at an absolute path.

        Raises:
            NotFoundError: there is none.
            StoreError: the store cannot be read.
        """
        node: Node = self._root
        for name in path.split("/"):
            if name:
                if not isinstance(node, Folder):
                    raise NotFoundError(f"{path} is not there")
                node = node.child(name)
        return node

    def _own(self, live: Mapping[str, LiveSource]) -> Folder:
        children: dict[str, Callable[[], Node]] = {
            name: functools.partial(LiveFile, f"/{OWN}/{name}", source) for name, source in live.items()
        }
        return _Fixed(f"/{OWN}", self.mounted_ns, children, files=tuple(live))

    def _readme(self) -> Text:
        location, names = self.store.storage.location, [kind.name for kind in self.formats]
        text = readme(location, names, has_incoming=self._has_incoming, by_label=self._has_labels, reader=self._reader)
        piece = Literal(text.encode())
        return Text(f"/{README}", piece, README, self.mounted_ns)

    def _by_format(self) -> Folder:
        children: dict[str, Callable[[], Node]] = {
            kind.name: functools.partial(
                _Names, self, f"/by-format/{kind.name}", functools.partial(_ArchivesOfName, kind=kind)
            )
            for kind in self.formats
        }
        children[FOLDER] = lambda: _Names(self, f"/by-format/{FOLDER}", _FoldersOfName)
        return _Fixed("/by-format", self.mounted_ns, children)


@dataclass(frozen=True)
class _Fixed(Folder):
    """A directory whose names never change."""

    path: str
    mtime_ns: int
    children: dict[str, Callable[[], Node]]
    files: tuple[str, ...] = ()  # the children that are files
    hidden: Mapping[str, Node] = field(default_factory=dict)  # further children, which are not listed

    def attributes(self) -> Attributes:
        return folder_attributes(self.path, len(self.children) - len(self.files), self.mtime_ns)

    def items(self) -> list[Item]:
        path = self.path.rstrip("/")
        return [file_item(path, name) if name in self.files else folder_item(path, name) for name in self.children]

    def child(self, name: str) -> Node:
        if name in self.children:
            return self.children[name]()
        if name in self.hidden:
            return self.hidden[name]
        raise NotFoundError(f"{self.path}/{name} is not there")


@dataclass(frozen=True)
class _Names(Folder):
    """A directory with one directory for each model name."""

    tree: Tree
    path: str
    of_name: Callable[[Tree, str, str], Folder]

    def attributes(self) -> Attributes:
        mtime_ns = self.tree.store.root_identity().mtime_ns
        return folder_attributes(self.path, self.tree.store.name_count(), mtime_ns)

    def items(self) -> list[Item]:
        return [folder_item(self.path, name) for name in self.tree.store.names()]

    def child(self, name: str) -> Node:
        self.tree.store.version_count(name)  # raises if there is none
        return self.of_name(self.tree, f"{self.path}/{name}", name)

    def find_all(self, names: Sequence[str]) -> Iterator[Node | None]:
        """Yield the entries. Their attributes raise the error of a name that has no model any more."""
        for name in names:
            yield self.of_name(self.tree, f"{self.path}/{name}", name)


@dataclass(frozen=True)
class _OfName(Folder):
    """A directory of one model name. Its subclasses define the content."""

    tree: Tree
    path: str
    name: str

    def _attributes(self, folders: int) -> Attributes:
        return folder_attributes(self.path, folders, self.tree.store.name_identity(self.name).mtime_ns)

    def _model(self, version: str) -> Model:
        return self.tree.store.model(Tag(self.name, version))

    def _missing(self, name: str) -> NotFoundError:
        return NotFoundError(f"{self.path}/{name} is not there")


class _VersionsOfName(_OfName):
    """models/<name>: the versions, and links to the latest one."""

    def attributes(self) -> Attributes:
        return self._attributes(self.tree.store.version_count(self.name))

    def items(self) -> list[Item]:
        versions = self.tree.store.versions(self.name)
        items = [folder_item(self.path, version) for version in versions]
        if self.tree.store.latest(self.name) is not None:
            items += [link_item(self.path, name) for name in self.tree.latest_suffixes if name not in versions]
        return items

    def child(self, name: str) -> Node:
        return self._child(self.tree.store.latest, name)

    def find_all(self, names: Sequence[str]) -> Iterator[Node | None]:
        """Yield the entries. A listing asks for all links: this looks for the latest version once."""
        return found_by(functools.partial(self._child, functools.cache(self.tree.store.latest)), names)

    def _child(self, latest_of: Callable[[str], str | None], name: str) -> Node:
        suffix = self.tree.latest_suffixes.get(name)
        if suffix is None or self.tree.store.has_version(Tag(self.name, name)):
            return _VersionFolder(self.tree, f"{self.path}/{name}", self._model(name))
        latest = latest_of(self.name)
        if latest is None:
            raise self._missing(name)
        target = f"{latest}/{Tag(self.name, latest).stem}{suffix}" if suffix else latest
        mtime_ns = self.tree.store.name_identity(self.name).mtime_ns
        return Link(f"{self.path}/{name}", target, mtime_ns)


@dataclass(frozen=True)
class _ArchivesOfName(_OfName):
    """by-format/<format>/<name>: one archive for each version."""

    kind: Format

    def attributes(self) -> Attributes:
        self.tree.store.version_count(self.name)  # raises if there is none
        return self._attributes(0)

    def items(self) -> list[Item]:
        versions = self.tree.store.versions(self.name)
        return [file_item(self.path, Tag(self.name, version).stem + self.kind.suffix) for version in versions]

    def child(self, name: str) -> Node:
        version = name.removeprefix(f"{self.name}-").removesuffix(self.kind.suffix)
        if name != Tag(self.name, version).stem + self.kind.suffix:
            raise self._missing(name)
        return ArchiveFile(self.tree.store, self.tree.archives, f"{self.path}/{name}", self._model(version), self.kind)


class _FoldersOfName(_OfName):
    """by-format/folder/<name>: laid out like a BentoML store, `latest` included."""

    def attributes(self) -> Attributes:
        return self._attributes(self.tree.store.version_count(self.name))

    def items(self) -> list[Item]:
        items = [folder_item(self.path, version) for version in self.tree.store.versions(self.name)]
        if self.tree.store.latest(self.name) is not None:
            items.append(file_item(self.path, LATEST))
        return items

    def child(self, name: str) -> Node:
        try:
            return ModelFolder(self.tree.store, self.tree.archives, f"{self.path}/{name}", self._model(name))
        except NotFoundError:
            latest = self.tree.store.latest(self.name) if name == LATEST else None
            if latest is None:
                raise
            mtime_ns = self.tree.store.name_identity(self.name).mtime_ns
            return Text(f"{self.path}/{name}", Literal(latest.encode()), latest, mtime_ns)


@dataclass(frozen=True)
class _VersionFolder(Folder):
    """models/<name>/<version>: the model in every format."""

    tree: Tree
    path: str
    model: Model

    def attributes(self) -> Attributes:
        return folder_attributes(self.path, 1, self.model.mtime * SECOND_NS)

    def items(self) -> list[Item]:
        items = [file_item(self.path, ALL_SUMS), folder_item(self.path, "files")]
        for kind in self.tree.formats:
            archive = self._archive_name(kind)
            items += [file_item(self.path, archive), file_item(self.path, f"{archive}.sha256")]
        return items

    def find_all(self, names: Sequence[str]) -> Iterator[Node | None]:
        """Yield the entries. A listing asks for all of them: this finds each without comparing all names."""
        tree, model, path = self.tree, self.model, self.path
        kinds = {self._archive_name(kind): kind for kind in tree.formats}
        for name in names:
            kind = kinds.get(name)
            if kind is not None:
                yield ArchiveFile(tree.store, tree.archives, f"{path}/{name}", model, kind)
            else:
                kind = kinds.get(name.removesuffix(SUFFIX))
                if kind is not None:
                    yield ChecksumFile(tree.store, tree.archives, f"{path}/{name}", model, (kind,))
                else:
                    yield self.child(name)

    def child(self, name: str) -> Node:
        path = f"{self.path}/{name}"
        if name == "files":
            return ModelFolder(self.tree.store, self.tree.archives, path, self.model)
        if name == ALL_SUMS:
            return ChecksumFile(self.tree.store, self.tree.archives, path, self.model, self.tree.formats)
        for kind in self.tree.formats:
            archive = self._archive_name(kind)
            if name == archive:
                return ArchiveFile(self.tree.store, self.tree.archives, path, self.model, kind)
            if name == f"{archive}.sha256":
                return ChecksumFile(self.tree.store, self.tree.archives, path, self.model, (kind,))
        raise NotFoundError(f"{path} is not there")

    def subject(self) -> Subject:
        return Subject(self.model)

    def _archive_name(self, kind: Format) -> str:
        return self.model.tag.stem + kind.suffix
