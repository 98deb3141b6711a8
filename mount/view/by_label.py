"""`by-label/KEY/VALUE/NAME/VERSION`: links to the models that have a label. An option of `bentofs mount`.

The directories are made from one look at all models. It reads each `model.yaml` once, and again if it has changed.

Threading: any thread. One thread looks; others that need the result wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from bentofs.mount.view.nodes import Attributes, Folder, Item, Link, Node, folder_attributes, folder_item, link_item
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import NotFoundError

BY_LABEL = "by-label"
_SAFE = "@:+, "  # in a name, beside letters, digits, '_', '.', '-' and '~'
_EMPTY = "%"  # the name for an empty text; no other text has it
_MAX_NAME = 255  # bytes, as in Linux
_MAX_LABELS = 1000  # of one model
_SECONDS = 0.8  # for which a look is believed,
_SHARE = 5  # and so many times as long as it took

_Versions = list[str]
_Found = dict[str, dict[str, dict[str, _Versions]]]  # by key, value and name; the names as in the tree


class Labels:
    """The labels of all models of a store."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._turn = threading.Lock()  # held while one thread looks at all models
        self._found: tuple[_Found, float] = ({}, 0.0)  # and until when it is believed (monotonic)

    def found(self) -> _Found:
        """Return the models by key, value and name.

        Raises:
            StoreError: the store, or one of its models, cannot be read now.
        """
        found, until = self._found
        if time.monotonic() < until:
            return found
        with self._turn:
            found, until = self._found
            begun = time.monotonic()
            if begun >= until:
                found = self._look()
                now = time.monotonic()
                self._found = found, now + max(_SECONDS, _SHARE * (now - begun))
        return found

    def _look(self) -> _Found:
        found: _Found = {}
        for info in self._store.infos():
            for key in sorted(info.labels)[:_MAX_LABELS]:
                shown, value = shown_label(key), shown_label(info.labels[key])
                if shown is not None and value is not None:
                    versions = found.setdefault(shown, {}).setdefault(value, {}).setdefault(info.tag.name, [])
                    versions.append(info.tag.version)
        return found


def shown_label(text: str) -> str | None:
    """Return a label's key or value as a name of the tree. None if that would be too long.

    ASCII letters, digits and a few signs stand for themselves, all other bytes are written as in a URL."""
    name = quote_from_bytes(text.encode("utf-8", "surrogatepass"), _SAFE) or _EMPTY
    if name in (".", ".."):
        name = name.replace(".", "%2E")
    return name if len(name) <= _MAX_NAME else None


@dataclass(frozen=True)
class ByLabel(Folder):
    """A directory in `by-label/`, or `by-label/` itself."""

    labels: Labels
    mtime_ns: int
    steps: tuple[str, ...] = ()  # at most a key, a value and a name

    @property
    def _path(self) -> str:
        return "/".join(("", BY_LABEL, *self.steps))

    def attributes(self) -> Attributes:
        below = self._below()
        return folder_attributes(self._path, len(below) if isinstance(below, dict) else 0, self.mtime_ns)

    def items(self) -> list[Item]:
        below = self._below()
        make: Callable[[str, str], Item] = folder_item if isinstance(below, dict) else link_item
        return [make(self._path, name) for name in sorted(below)]

    def child(self, name: str) -> Node:
        below = self._below()
        if name not in below:
            raise NotFoundError(f"{self._path}/{name} is not there")
        if isinstance(below, dict):
            return ByLabel(self.labels, self.mtime_ns, (*self.steps, name))
        return Link(f"{self._path}/{name}", f"../../../../models/{self.steps[-1]}/{name}", self.mtime_ns)

    def _below(self) -> Mapping[str, object] | _Versions:
        below: object = self.labels.found()
        for step in self.steps:
            below = below.get(step) if isinstance(below, dict) else None
        if isinstance(below, dict | list):
            return below
        raise NotFoundError(f"{self._path} is not there")
