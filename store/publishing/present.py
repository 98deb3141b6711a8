"""PresentVersion: the version of a tag that a local store holds now. Finds it and compares it with a staged model.

Threading: one thread for each object.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from contextlib import suppress

from bentofs.store.catalog.completeness import Completeness
from bentofs.store.catalog.scanner import Scanner
from bentofs.store.errors import BadModelError, ModelExistsError, NotFoundError, SourceChangedError
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Verdict
from bentofs.store.publishing.compare import first_difference, first_other_exec_bit
from bentofs.store.staging.fsync_batch import Syncer
from bentofs.store.storage.base import Entry
from bentofs.store.storage.local import LocalStorage
from bentofs.store.util.display import printable
from bentofs.store.util.fs import FOLDER, sync_path, writing

log = logging.getLogger(__name__)

_CLAIM_SECONDS = 0.5  # for which another import's empty directory may reserve the place of its model


class PresentVersion:
    """One tag's place in a local store, and the model in it."""

    def __init__(self, store: str, tag: Tag) -> None:
        """`store`: the store's directory."""
        self.name_folder = os.path.join(store, tag.name)
        self.path = os.path.join(self.name_folder, tag.version)
        self._store = store
        self._tag = tag
        self._storage = LocalStorage(store)

    def find(self) -> os.stat_result | None:
        """Return the stat of the version's directory; None if nothing is there.

        Raises:
            ModelExistsError: a file is in the way.
        """
        _stat_of_folder(self.name_folder)
        return _stat_of_folder(self.path)

    def refuse_unfinished(self) -> None:
        """Raise ModelExistsError if the store's model is not complete. Wait for an empty directory: it may reserve the
        place of another import's model (on systems without renameat2)."""
        scanner = Scanner(self._storage, lambda _path, sentence: log.debug("%s", sentence))
        deadline = time.monotonic() + _CLAIM_SECONDS
        while True:
            version = scanner.look(self._tag.name, None).versions.get(self._tag.version)
            if version is not None and version.state is Completeness.COMPLETE:
                return
            if time.monotonic() > deadline or not self._is_empty():
                break
            time.sleep(_CLAIM_SECONDS / 50)
        raise ModelExistsError(
            f"{self._tag} is being saved by BentoML just now, or a save was interrupted: import it again when that "
            f"is done, or delete {printable(self.path)}"
        )

    def compare(self, staged_root: str, known: Verdict | None = None) -> Verdict:
        """Compare with a staged model. If it is the same, sync the store's model to disk. `known`: an earlier result,
        which holds if the store's model has not changed since."""
        try:
            entries = sorted(self._storage.walk(self._tag.path)[0], key=lambda entry: entry.path)
        except BadModelError as error:
            return Verdict([], str(error))
        if known is not None and known.entries == entries:
            return known
        staged = LocalStorage(os.path.dirname(staged_root))
        staged_entries, _ = staged.walk(os.path.basename(staged_root))
        path = first_difference(self._storage, entries, staged, staged_entries)
        if path is None:
            self._sync(entries)
            return Verdict(entries, None, first_other_exec_bit(entries, staged_entries))
        return Verdict(entries, f"{printable(path)} differs")

    def compare_early(self, staged_root: str) -> Verdict | None:
        """Compare with a staged model before it is published. Return None if there is no complete model to compare
        with."""
        with suppress(NotFoundError, SourceChangedError, ModelExistsError):
            if self.find() is not None:
                self.refuse_unfinished()
                return self.compare(staged_root)
        return None

    def _is_empty(self) -> bool:
        """Tell whether the version's directory is empty or gone."""
        with writing(self.path):
            try:
                return not os.listdir(self.path)
            except FileNotFoundError:
                return True

    def _sync(self, entries: list[Entry]) -> None:
        """Sync the store's model to disk. BentoML does not sync what it saves; a successful import guarantees it."""
        with writing(self.path):
            folder = os.open(self.path, FOLDER)
            syncer = Syncer(folder)
            try:
                for entry in entries:
                    if entry.is_folder:
                        continue
                    path = os.path.join(self._store, entry.source)
                    if os.path.isabs(entry.source):  # behind a link: maybe on another file system
                        sync_path(path)
                    else:
                        syncer.file(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), entry.size)
                syncer.finish()
            finally:
                syncer.abandon()
                os.close(folder)
            for path in (self.name_folder, self._store):
                sync_path(path)


def _stat_of_folder(path: str) -> os.stat_result | None:
    with writing(path):
        try:
            look = os.lstat(path)
        except FileNotFoundError:
            return None
    if not stat.S_ISDIR(look.st_mode):
        raise ModelExistsError(f"{printable(path)} is in the way, since it is not a directory: remove it first")
    return look
