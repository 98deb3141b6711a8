"""Verify: read a model's files whole and compare them with their recorded SHA-256s (store/integrity/baseline.py)."""

from __future__ import annotations

import enum
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bentofs.store.archives.digest import sha256_of
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import SourceChangedError, StoreUnreadableError
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.staging.mac_extras import without_extras
from bentofs.store.storage.base import Identity, Storage
from bentofs.store.storage.entries import Entries
from bentofs.store.storage.pinned import WHOLE, OpenFiles, PinnedFile

log = logging.getLogger(__name__)

_TOGETHER = 1 << 20  # bytes of small files that are read together
_FILES_TOGETHER = 256


class VerifyOutcome(enum.Enum):
    """The outcome for a model, or for one of its files."""

    SAME = "same"
    RECORDED = "recorded"
    DIFFERS = "differs"
    MISSING = "missing"
    NEW = "not recorded before"
    UNREADABLE = "unreadable"
    NOT_RECORDED = "could not be recorded"


class VerifyReport(NamedTuple):
    """The outcome for one model."""

    outcome: VerifyOutcome  # SAME, RECORDED, NOT_RECORDED, DIFFERS, or UNREADABLE if no readable file differs
    file_count: int
    size: int  # bytes
    problems: list[tuple[str, VerifyOutcome]]  # paths in the model

    def sentence(self) -> str:
        """Return a sentence for a user."""
        files = f"{self.file_count} files, {self.size:,} bytes"
        if self.outcome is VerifyOutcome.RECORDED:
            return f"recorded for the next time ({files})"
        if self.outcome is VerifyOutcome.NOT_RECORDED:
            return f"read whole, but could not be recorded for the next time ({files})"
        if self.outcome is VerifyOutcome.SAME:
            return f"the same as recorded ({files})"
        unreadable = sum(outcome is VerifyOutcome.UNREADABLE for _, outcome in self.problems)
        differing = len(self.problems) - unreadable
        parts = [f"{differing} differ from what was recorded"] if differing else []
        parts += [f"{unreadable} could not be read"] if unreadable else []
        return f"of {files}, {' and '.join(parts)}"


def verify_model(
    store: ModelStore,
    digests: Baseline,
    tag: Tag,
    *,
    accept: bool = False,
    expect: Callable[[int], object] = lambda _size: None,
    progress: Callable[[int], object] = lambda _count: None,
) -> VerifyReport:
    """Read a model whole and compare it with its baseline; `accept`: record the model's SHA-256s instead.

    `expect` is called with the model's size in bytes, then `progress` with the number of bytes of each read.

    Raises:
        NotFoundError, BadModelError: there is no such model to read.
        StoreUnreadableError: the baseline is in use by another process.
    """
    model = store.model(tag, max_age=0)
    expect(model.size)
    key = (store.storage.location, tag, model.info.creation_time)
    recorded = {} if accept else digests.of(*key)
    found: dict[bytes, str] = {}
    problems: list[tuple[str, VerifyOutcome]] = []
    for path, sha256 in _digests(store.storage, model.entries, progress):
        if sha256 is not None:
            found[path] = sha256
        else:
            problems.append((os.fsdecode(path), VerifyOutcome.UNREADABLE))
            recorded.pop(path, None)
    if recorded:
        problems += _differences(recorded, _without_new_extras(store, model, recorded, found))
        outcome = VerifyOutcome.SAME
    elif not problems:
        outcome = (
            VerifyOutcome.RECORDED if digests.record(*key, found, first=not accept) else VerifyOutcome.NOT_RECORDED
        )
    if problems:
        only_unreadable = all(problem is VerifyOutcome.UNREADABLE for _, problem in problems)
        outcome = VerifyOutcome.UNREADABLE if only_unreadable else VerifyOutcome.DIFFERS
    return VerifyReport(outcome, model.file_count, model.size, problems)


def _digests(
    storage: Storage, entries: Entries, progress: Callable[[int], object]
) -> Iterator[tuple[bytes, str | None]]:
    """Yield the path and the SHA-256 of each file, in order; None and a warning in the log for one that cannot be
    read."""
    buffer = memoryview(bytearray(_TOGETHER))
    open_files = OpenFiles()
    for group in _groups(entries):
        views, end = [], 0
        for _, _, identity in group:
            views.append(buffer[end : end + identity.size])
            end += identity.size
        if len(group) > 1:
            try:
                storage.read_whole(
                    (source, identity, view) for (_, source, identity), view in zip(group, views, strict=True)
                )
            except (SourceChangedError, StoreUnreadableError):
                pass  # read them one by one, to find the file
            else:
                yield from (
                    (path, hashlib.sha256(view).hexdigest()) for (path, _, _), view in zip(group, views, strict=True)
                )
                progress(end)
                continue
        for path, source, identity in group:
            try:
                yield path, sha256_of(PinnedFile(storage, open_files, source, identity), progress)
            except (SourceChangedError, StoreUnreadableError) as error:
                log.warning("%s", error)
                yield path, None


def _groups(entries: Entries) -> Iterator[list[tuple[bytes, str, Identity]]]:
    """Yield path, source and identity of all files, in order: small ones in groups that are read together, each large
    one by itself."""
    group: list[tuple[bytes, str, Identity]] = []
    size = 0
    for entry in entries:
        if entry.identity is None:
            continue
        file = (os.fsencode(entry.path), entry.source, entry.identity)
        is_large = entry.size > WHOLE
        if group and (is_large or size + entry.size > _TOGETHER or len(group) >= _FILES_TOGETHER):
            yield group
            group, size = [], 0
        if is_large:
            yield [file]
        else:
            group.append(file)
            size += entry.size
    if group:
        yield group


def _without_new_extras(
    store: ModelStore, model: Model, recorded: dict[bytes, str], found: dict[bytes, str]
) -> dict[bytes, str]:
    """Leave out new files that macOS added: imports do not record them, and Finder adds more at any time."""
    if recorded.keys() >= found.keys():
        return found
    try:
        kept = {os.fsencode(entry.path) for entry in without_extras(store.storage, list(model.entries))}
    except (SourceChangedError, StoreUnreadableError):
        return found
    return {path: sha256 for path, sha256 in found.items() if path in kept or path in recorded}


def _differences(recorded: dict[bytes, str], found: dict[bytes, str]) -> list[tuple[str, VerifyOutcome]]:
    problems = []
    for path in sorted(recorded.keys() | found.keys()):
        if path not in found:
            problems.append((os.fsdecode(path), VerifyOutcome.MISSING))
        elif path not in recorded:
            problems.append((os.fsdecode(path), VerifyOutcome.NEW))
        elif recorded[path] != found[path]:
            problems.append((os.fsdecode(path), VerifyOutcome.DIFFERS))
    return problems
