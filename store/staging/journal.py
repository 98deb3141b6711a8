"""The journal of intents: changes to a store that are about to be made. Another process can finish or undo them after a
crash.

An intent is a directory. It is made before the store is changed, and removed when all is done:

    <intents>/<inode of the staged directory>-<unique>/<name>/<version>/
        keep-latest     an existing `latest` is left as it is
        claimed         an empty version directory in the store may be ours (file systems without renameat2 only)
        old/            the version that was moved out of the store to make room (file systems without renameat2 only)

Only names are used, no contents: after a crash, a name is either there or not.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from bentofs.store.catalog.latest import update_latest
from bentofs.store.errors import NotFoundError
from bentofs.store.model.model import MAX_MODEL_YAML, MODEL_YAML, ModelInfo
from bentofs.store.model.tag import Tag, is_tag_part
from bentofs.store.storage.local import LocalStorage
from bentofs.store.util.fs import FOLDER, remove_tree, sync_path
from bentofs.store.util.renameat2 import is_unsupported, rename_new

log = logging.getLogger(__name__)

_KEEP_LATEST = "keep-latest"
_CLAIMED = "claimed"


class JournalEntry:
    """One model that is about to be published."""

    def __init__(self, store: str, tag: Tag, path: str, inode: int) -> None:
        """`path`: the version's directory in the intent; `inode`: the inode of the directory to be published."""
        self.tag = tag
        self.inode = inode
        self.old = os.path.join(path, "old")
        self._store = store
        self._path = path

    @classmethod
    def begin(cls, store: str, intents: str, tag: Tag, staged: str, *, move_latest: bool) -> JournalEntry:
        """Make a new intent in the directory `intents`; `staged`: the directory to be published.

        Raises:
            OSError
        """
        inode = os.lstat(staged).st_ino
        path = os.path.join(intents, f"{inode}-{secrets.token_hex(8)}", tag.name, tag.version)
        os.makedirs(path, 0o700)
        intent = cls(store, tag, path, inode)
        if not move_latest:
            intent._mark(_KEEP_LATEST)
        return intent

    def place(self, source: str, folder: int) -> None:
        """Rename a directory to the version's name. `folder`: the open directory of the model's name.

        Raises:
            FileExistsError: the version is there. It may be an empty directory that BentoML has just made.
            OSError
        """
        version = self.tag.version
        try:
            rename_new(source, folder, version)
            return
        except OSError as error:
            if not is_unsupported(error):
                raise
        if not self._has(_CLAIMED):
            self._mark(_CLAIMED)
            sync_path(self._path)
        os.mkdir(version, dir_fd=folder)
        try:
            os.rename(source, version, dst_dir_fd=folder)  # works over an empty directory only
        except OSError as error:
            with suppress(OSError):
                os.rmdir(version, dir_fd=folder)
            if error.errno == errno.ENOTEMPTY:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), version) from None
            raise

    def end(self, discarded: str) -> None:
        """Remove the intent when all is done. `discarded`: an unused path in the staging area.

        Raises:
            OSError
        """
        with suppress(FileNotFoundError):
            os.rename(self.old, discarded)  # so that a half-removed version is never put back
            remove_tree(discarded)
        remove_tree(os.path.dirname(os.path.dirname(self._path)))

    def settle(self, lock: Callable[[], AbstractContextManager[None]], temporary: str) -> None:
        """Finish or undo a change that a crash or an error interrupted, and end it. `lock`, `temporary`: for
        `update_latest`.

        Raises:
            OSError, StoreError: this failed and must be done again.
        """
        if self._has(_CLAIMED):
            with suppress(OSError):  # it is gone, or no longer empty
                os.rmdir(os.path.join(self._store, self.tag.path))
        if os.path.lexists(self.old):
            self._put_back()
        if self.is_published():
            self.finish_latest(lock, temporary)
        self.end(temporary)

    def is_published(self) -> bool:
        """Tell whether the directory to be published is in the store."""
        with suppress(FileNotFoundError):
            return os.lstat(os.path.join(self._store, self.tag.path)).st_ino == self.inode
        return False

    def finish_latest(self, lock: Callable[[], AbstractContextManager[None]], temporary: str) -> None:
        """Make the version the latest, if it is in the store and the rule says so.

        Raises:
            OSError, StoreError
        """
        storage = LocalStorage(self._store)
        try:
            content = storage.read_small(f"{self.tag.path}/{MODEL_YAML}", MAX_MODEL_YAML)
        except NotFoundError:
            return
        creation_time = ModelInfo.parse(self.tag, content).creation_time
        with lock():
            update_latest(self._store, self.tag, creation_time, move=not self._has(_KEEP_LATEST), temporary=temporary)

    def _put_back(self) -> None:
        """Put the moved-out version back, unless another one is in its place."""
        with suppress(FileExistsError):
            os.mkdir(os.path.join(self._store, self.tag.name))
        folder = os.open(os.path.join(self._store, self.tag.name), FOLDER)
        try:
            self.place(self.old, folder)
            os.fsync(folder)
            log.warning("%s is back in the store: its replacement was interrupted", self.tag)
        except FileExistsError:
            log.info("%s was saved again after its replacement was interrupted", self.tag)
        finally:
            os.close(folder)

    def _mark(self, name: str) -> None:
        os.mkdir(os.path.join(self._path, name), 0o700)

    def _has(self, name: str) -> bool:
        return os.path.lexists(os.path.join(self._path, name))


def left_behind(store: str, intents: str) -> list[JournalEntry]:
    """Return the intents in a directory, which may be missing."""
    return [
        JournalEntry(
            store, Tag(name, version), os.path.join(intents, unique, name, version), int(unique.partition("-")[0])
        )
        for unique in _names(intents)
        for name in _names(os.path.join(intents, unique))
        for version in _names(os.path.join(intents, unique, name))
        if is_tag_part(name) and is_tag_part(version)  # so that no path leads out of the store
    ]


def _names(folder: str) -> list[str]:
    with suppress(FileNotFoundError):
        return os.listdir(folder)
    return []
