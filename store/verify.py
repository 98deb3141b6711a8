"""Verify: a model's files, read whole, against the SHA-256s recorded for them.

They are recorded when a model is verified for the first time (and, once there is importing, when it is imported), by
store, tag and creation time: a model saved again under its old tag is a new one.
"""

from __future__ import annotations

import enum
import logging
import os
from typing import NamedTuple

from store.archives import sha256_of
from store.catalog import ModelStore
from store.errors import SourceChangedError, StoreUnreadableError
from store.index import Index
from store.storage.pinned import OpenFiles, PinnedFile
from store.tag import Tag

log = logging.getLogger(__name__)


class Outcome(enum.Enum):
    """What became of a model, or of one of its files."""

    SAME = "same"
    RECORDED = "recorded"
    DIFFERS = "differs"
    MISSING = "missing"
    NEW = "not recorded before"
    UNREADABLE = "unreadable"


class Report(NamedTuple):
    """The outcome for one model."""

    outcome: Outcome  # SAME, RECORDED or DIFFERS
    file_count: int
    size: int  # bytes
    problems: list[tuple[str, Outcome]]  # paths in the model

    def sentence(self) -> str:
        """For a user."""
        files = f"{self.file_count} files, {self.size:,} bytes"
        if self.outcome is Outcome.RECORDED:
            return f"recorded for the next time ({files})"
        if self.outcome is Outcome.SAME:
            return f"the same as recorded ({files})"
        return f"{len(self.problems)} of {files} differ from what was recorded"


def verify_model(store: ModelStore, index: Index, tag: Tag, *, accept: bool = False) -> Report:
    """Read a model whole and compare; `accept`: record what is there instead.

    Raises:
        NotFoundError, BadModelError: there is no such model to read.
    """
    model = store.model(tag, max_age=0)
    key = (store.storage.location, str(tag), model.info.creation_time.isoformat())
    recorded = {} if accept else index.file_digests(*key)
    found: dict[bytes, str] = {}
    problems: list[tuple[str, Outcome]] = []
    open_files = OpenFiles()
    for entry in model.entries:
        if entry.identity is None:
            continue
        path = os.fsencode(entry.path)
        try:
            found[path] = sha256_of(PinnedFile(store.storage, open_files, entry.source, entry.identity))
        except (SourceChangedError, StoreUnreadableError) as error:
            log.warning("%s", error)
            problems.append((entry.path, Outcome.UNREADABLE))
            recorded.pop(path, None)
    if recorded:
        problems += _differences(recorded, found)
    elif not problems:
        index.forget_file_digests(key[0], key[1])
        index.keep_file_digests(*key, found)
    unchanged = Outcome.SAME if recorded else Outcome.RECORDED
    return Report(Outcome.DIFFERS if problems else unchanged, model.file_count, model.size, problems)


def _differences(recorded: dict[bytes, str], found: dict[bytes, str]) -> list[tuple[str, Outcome]]:
    problems = []
    for path in sorted(recorded.keys() | found.keys()):
        if path not in found:
            problems.append((os.fsdecode(path), Outcome.MISSING))
        elif path not in recorded:
            problems.append((os.fsdecode(path), Outcome.NEW))
        elif recorded[path] != found[path]:
            problems.append((os.fsdecode(path), Outcome.DIFFERS))
    return problems
