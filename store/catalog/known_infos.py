"""KnownInfos: what models' `model.yaml` say, and which manifests are usable, kept between processes.

A row belongs to the identity of one `model.yaml`: its key and its ETag in a bucket, its inode and its times in a
directory. A changed file has another identity, so it is read anew. It is kept only if the identity proves the content
(`Storage.pins_content`). A row that cannot be decoded, or is of another tag, counts as unknown: a directory may have
been renamed.

Threading: any thread.
"""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from bentofs.store.model.model import ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Identity

_FORMAT = 1  # raise it when ModelInfo reads a `model.yaml` in another way
_USABLE = "usable manifest 1"  # raise the number when a manifest is read in another way
_LONGEST = 4096  # characters of a row; longer ones are read from the store each time
_KEPT_TOGETHER = 256  # in memory before they are written


class InfoRows(Protocol):
    """The rows on disk."""

    def infos(self, files: Sequence[Identity]) -> Mapping[Identity, str]:
        """Return the known rows of these files."""

    def keep_infos(self, rows: Iterable[tuple[Identity, str]]) -> None:
        """Keep rows. Failures are logged at most."""


class KnownInfos:
    """The infos of one store."""

    def __init__(self, rows: InfoRows | None) -> None:
        """`rows`: None to keep nothing."""
        self._rows = rows
        self._lock = threading.Lock()  # guards the field below
        self._pending: list[tuple[Identity, str]] = []

    def find(self, files: Mapping[Tag, Identity]) -> dict[Tag, ModelInfo]:
        """Return the known infos of models, given by the identities of their `model.yaml`."""
        found: dict[Tag, ModelInfo] = {}
        if self._rows is not None and files:
            rows = self._rows.infos(list(files.values()))
            for tag, identity in files.items():
                info = _decode(tag, rows[identity]) if identity in rows else None
                if info is not None:
                    found[tag] = info
        return found

    def keep(self, file: Identity, info: ModelInfo) -> None:
        """Keep what the `model.yaml` with this identity says. It is written with others, at the latest by `flush`."""
        row = _encode(info) if self._rows is not None else ""
        if not row or len(row) > _LONGEST:
            return
        self._add(file, row)

    def usable(self, manifests: Sequence[Identity]) -> set[Identity]:
        """Return those manifests of models that are known to be usable."""
        if self._rows is None or not manifests:
            return set()
        return {file for file, row in self._rows.infos(manifests).items() if row == _USABLE}

    def keep_usable(self, manifest: Identity) -> None:
        """Keep that the manifest with this identity is usable. It is written as what `keep` keeps."""
        if self._rows is not None:
            self._add(manifest, _USABLE)

    def flush(self) -> None:
        """Write all that is kept."""
        with self._lock:
            pending, self._pending = self._pending, []
        if pending and self._rows is not None:
            self._rows.keep_infos(pending)

    def _add(self, file: Identity, row: str) -> None:
        with self._lock:
            self._pending.append((file, row))
            is_enough = len(self._pending) >= _KEPT_TOGETHER
        if is_enough:
            self.flush()


def _encode(info: ModelInfo) -> str:
    fields = [_FORMAT, str(info.tag), info.module, info.creation_time.isoformat(), info.labels]
    return json.dumps(fields, separators=(",", ":"))  # ASCII, also for lone surrogates


def _decode(tag: Tag, row: str) -> ModelInfo | None:
    try:
        number, text, module, created, labels = json.loads(row)
        creation_time = datetime.datetime.fromisoformat(created)
    except (ValueError, TypeError, RecursionError):
        return None
    is_known = number == _FORMAT and text == str(tag) and creation_time.tzinfo is datetime.timezone.utc
    if not is_known or not isinstance(module, str) or not isinstance(labels, dict):
        return None
    if not all(isinstance(value, str) for value in labels.values()):
        return None
    return ModelInfo(tag, module, creation_time, labels)
