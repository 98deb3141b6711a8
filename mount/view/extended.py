"""Extended attributes of the tree: a model, its archives and its files tell of themselves in `user.*`.

They are few and short, since programs copy them along: `cp -a` ignores a failure, but `rsync -X` and Python's
`shutil.copy2` fail if the target has no room. ext4 keeps all attributes of a file in one block.

Threading: any thread may call anything.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from urllib.parse import quote_from_bytes

from cachetools import LRUCache

from bentofs.mount.view.nodes import Node, Subject
from bentofs.store.archives.archives import Archives
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import StoreError
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.model.framework import Framework
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, Model
from bentofs.store.model.tag import Tag

PREFIX = "user."  # of all our names; no other namespace has attributes
_MODEL, _OURS = "user.bentoml.", "user.bentofs."
_LABEL = "user.bentoml.label."
_LEFT_OUT = "user.bentofs.labels_left_out"
_MAX_NAME = 255  # bytes, as in Linux
_ROOM = 3000  # bytes for all that `model.yaml` tells, by ext4's reckoning; its block has 4096 for all attributes
_ENTRY = 22  # bytes that ext4 takes for each attribute beside its name and value, with padding
_KEPT = 1000  # models whose attributes are cached, of 1 to 5 KB each
_LABEL_SAFE = "/@:+,"  # in a label's key, beside letters, digits, '_', '.', '-' and '~'

Attributes = Mapping[str, bytes]


class ExtendedAttributes:
    """The extended attributes of one tree."""

    def __init__(self, store: ModelStore, archives: Archives, baseline: Baseline | None) -> None:
        """`baseline`: the recorded SHA-256s of models' files; None for none."""
        self._store = store
        self._archives = archives
        self._baseline = baseline
        self._lock = threading.Lock()
        self._kept: LRUCache[tuple[Tag, tuple[int, int, int]], dict[str, bytes]] = LRUCache(_KEPT)

    def of(self, node: Node) -> Attributes:
        """Return the attributes of a node, by name.

        Raises:
            SourceChangedError, StoreUnreadableError: the state of an archive cannot be found out now.
        """
        subject = node.subject()
        if subject is None:
            return {}
        return {**self._of_model(subject.model), **self._of_bytes(subject)}

    def _of_model(self, model: Model) -> dict[str, bytes]:
        key = model.tag, model.generation
        with self._lock:
            kept = self._kept.get(key)
        if kept is None:
            try:
                content = self._store.storage.read_small(f"{model.tag.path}/{MODEL_YAML}", MAX_MODEL_YAML)
            except StoreError:  # gone, or out of reach for a moment
                return _described(model, Framework())
            kept = _described(model, Framework.of(content))
            with self._lock:
                self._kept[key] = kept
        return kept

    def _of_bytes(self, subject: Subject) -> dict[str, bytes]:
        """Return the attributes that depend on the bytes of an archive or of a file."""
        model, kind, entry = subject
        if entry is not None:
            recorded = self._recorded(model, entry.path)
            return {f"{_OURS}recorded_sha256": recorded.encode()} if recorded is not None else {}
        if kind is None:
            return {}
        found = {f"{_OURS}format": kind.name.encode(), f"{_OURS}size_is": self._archives.size_is(model, kind).encode()}
        sha256 = self._archives.known_sha256(model, kind)
        if sha256 is not None:
            found[f"{_OURS}sha256"] = sha256.encode()
        return found

    def _recorded(self, model: Model, path: str) -> str | None:
        if self._baseline is None:
            return None
        return self._baseline.of_file(self._store.storage.location, model.tag, model.info.creation_time, path)


def label_name(key: str) -> str:
    """Return a label's key as part of an attribute's name: ASCII letters, digits and a few signs as they are, all other
    bytes as in a URL (`%20`)."""
    return quote_from_bytes(key.encode("utf-8", "surrogatepass"), _LABEL_SAFE)


def _described(model: Model, framework: Framework) -> dict[str, bytes]:
    info = model.info
    texts = {"tag": str(info.tag), "creation_time": info.creation_time.isoformat(), "module": info.module}
    texts |= {"framework": framework.name, "bentoml_version": framework.bentoml, "python_version": framework.python}
    texts |= {f"framework.{label_name(package)}": version for package, version in framework.versions}
    found, room = _fitting({f"{_MODEL}{name}": text for name, text in texts.items() if text}, _ROOM)
    labels, _ = _fitting({f"{_LABEL}{label_name(key)}": info.labels[key] for key in sorted(info.labels)}, room)
    if len(labels) < len(info.labels):
        found[_LEFT_OUT] = str(len(info.labels) - len(labels)).encode()
    return found | labels


def _fitting(texts: dict[str, str], room: int) -> tuple[dict[str, bytes], int]:
    """Return the attributes that fit into so many bytes, and the rest of the room."""
    found = {}
    for name, text in texts.items():
        value = text.encode("utf-8", "surrogatepass")
        size = _ENTRY + len(name) - len(PREFIX) + len(value)
        if len(name) <= _MAX_NAME and size <= room:
            found[name] = value
            room -= size
    return found, room
