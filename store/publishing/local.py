"""Publishing: a staged model becomes a version in the store, whole or not at all.

One rename puts it there, and never over anything: a plain rename would replace the empty directory that BentoML makes
when it begins to save. Without renameat2, an empty directory reserves the place for a moment, and an overwrite leaves a
moment without the model; `store/staging/journal.py` describes the recovery after a crash in that moment.

Threading: any thread; several processes may publish the same tag at once.
"""

from __future__ import annotations

import datetime
import enum
import logging
import os
import stat
import threading
import time
from contextlib import AbstractContextManager, suppress
from typing import NamedTuple, Protocol

from bentofs.store.catalog.completeness import State
from bentofs.store.catalog.scanner import Scanner
from bentofs.store.errors import (
    BadModelError,
    ModelExistsError,
    NotFoundError,
    OtherContentError,
    SourceChangedError,
    StoreError,
    StoreUnwritableError,
)
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.compare import first_difference, first_other_exec_bit
from bentofs.store.staging.fsync_batch import Syncer
from bentofs.store.staging.journal import JournalEntry
from bentofs.store.staging.model import Staged
from bentofs.store.staging.session import Session
from bentofs.store.storage.base import Entry
from bentofs.store.storage.local import LocalStorage
from bentofs.store.util.display import printable
from bentofs.store.util.fs import FOLDER, remove_tree, sync_path, writing
from bentofs.store.util.renameat2 import exchange, is_unsupported

log = logging.getLogger(__name__)

_CLAIM_SECONDS = 0.5  # for which another import's empty directory may reserve the place of its model
_ATTEMPTS = 20  # each fails only if another process changed the same version in the meantime
_LARGE_SIZE, _LARGE_COUNT = 256 << 20, 5000  # bytes, files: removing more takes noticeable time
_MARK_AGE_NS = 10_000_000_000  # more than the coarsest clock tick of a file system


class Outcome(enum.Enum):
    """The outcome of publishing."""

    IMPORTED = "imported"  # the store had no model of this tag
    UNCHANGED = "unchanged"  # it had the same model
    REPLACED = "replaced"  # it had another model, which is gone now


class Verdict(NamedTuple):
    """The comparison of a staged model with the store's model of the same tag. It may be made before publishing."""

    entries: list[Entry]  # of the model in the store
    difference: str | None  # for a sentence; None if they are the same
    other_exec_bit: str | None = None  # if they are the same, the first file that is executable in one of them only


def compare(session: Session, staged_root: str, tag: Tag, *, follow_links: bool = False) -> Verdict | None:
    """Compare a staged model with the store's, so that `publish` need not; None if the store has no complete one.

    Raises:
        StoreUnreadableError, StoreUnwritableError: see `publish`.
    """
    publication = _Publication(session, staged_root, tag, datetime.datetime.min, False, follow_links, None)
    with suppress(NotFoundError, SourceChangedError, ModelExistsError):
        return publication.compare()
    return None


def note_exec_bit(tag: Tag, path: str | None) -> None:
    """Log a file that differs in its exec bit only; `path`: None if there is none."""
    if path is not None:
        shown = printable(path)
        log.info("%s is unchanged, but not the exec bit of %s: --overwrite takes over what came in", tag, shown)


class Publisher(Protocol):
    """Publishes staged models to a store."""

    def compare(self, staged: Staged) -> Verdict | None:
        """Compare a staged model with the store's now, if that saves `publish` time; None if it does not, or if the
        store has no complete one.

        Raises:
            StoreUnreadableError, StoreUnwritableError: see `publish`.
        """

    def publish(
        self, staged: Staged, *, overwrite: bool = False, move_latest: bool = True, verdict: Verdict | None = None
    ) -> Outcome:
        """Make a staged model the version of its tag. On return, the version is there, durable and complete; the
        staged directory may be gone. After an error, no part of it is visible.

        `overwrite`: replace a model of this tag that has other content or other exec bits. `move_latest`: False leaves
        an existing `latest` as it is. `verdict`: the result of `compare`.

        Raises:
            ModelExistsError: the tag exists with other content, or is being saved just now.
            NoSpaceError: no room in the store.
            StoreUnwritableError: anything else was refused.
            StoreUnreadableError: the store's model cannot be read to compare, or the store cannot be reached.
        """


class LocalPublisher:
    """Publishes to the store of a session's staging area, by a rename."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def compare(self, staged: Staged) -> Verdict | None:
        """Do what `Publisher.compare` does."""
        return compare(self._session, staged.path, staged.info.tag)

    def publish(
        self, staged: Staged, *, overwrite: bool = False, move_latest: bool = True, verdict: Verdict | None = None
    ) -> Outcome:
        """Do what `Publisher.publish` does."""
        info = staged.info
        return publish(
            self._session,
            staged.path,
            info.tag,
            info.creation_time,
            overwrite=overwrite,
            move_latest=move_latest,
            verdict=verdict,
        )


def publish(
    session: Session,
    staged_root: str,
    tag: Tag,
    creation_time: datetime.datetime,
    *,
    overwrite: bool = False,
    move_latest: bool = True,
    follow_links: bool = False,
    verdict: Verdict | None = None,
) -> Outcome:
    """Make a staged directory the version `tag` of the session's store. On return, the version is there, durable and
    complete; `staged_root` is gone. After an error, the store is unchanged and `staged_root` is still there, unless the
    last step failed: syncing the store's directories.

    `staged_root`: a complete, checked directory below `session.staged`, every file and directory of it fsynced.
    `creation_time`: the model's, timezone-aware; `latest` is moved by it, as BentoML does.
    `overwrite`: replace a model of this tag that has other content or exec bits.
    `move_latest`: False leaves an existing `latest` as it is.
    `follow_links`: the comparison follows links that lead out of the model in the store.
    `verdict`: the result of `compare`; it holds until a file of the model in the store changes.

    Raises:
        ModelExistsError: the tag exists with other content, or is being saved just now.
        NoSpaceError: no room in the store.
        StoreUnwritableError: the system refused anything else; the text names the path.
        StoreUnreadableError: the store's model cannot be read to compare.
    """
    return _Publication(session, staged_root, tag, creation_time, move_latest, follow_links, verdict).run(overwrite)


class _Publication:
    """One call of `publish`."""

    def __init__(
        self,
        session: Session,
        staged_root: str,
        tag: Tag,
        creation_time: datetime.datetime,
        move_latest: bool,
        follow_links: bool,
        verdict: Verdict | None,
    ) -> None:
        self._verdict = verdict
        self._session = session
        self._staged = staged_root
        self._tag = tag
        self._creation_time = creation_time
        self._move_latest = move_latest
        self._store = session.area.store
        self._storage = LocalStorage(self._store, follow_links=follow_links)
        self._name_folder = os.path.join(self._store, tag.name)
        self._target = os.path.join(self._name_folder, tag.version)

    def run(self, overwrite: bool) -> Outcome:
        with writing(self._staged):
            self._mark_complete()
        for _ in range(_ATTEMPTS):
            with suppress(NotFoundError, SourceChangedError):  # another process changes it: look again
                outcome = self._attempt(overwrite)
                if outcome is not None:
                    return outcome
        raise StoreUnwritableError(f"{self._tag} is changed in the store by others again and again: try once more")

    def _mark_complete(self) -> None:
        """Set BentoML's own mark of a finished save: the directory's mtime differs from its ctime."""
        created_ns = int(self._creation_time.timestamp()) * 1_000_000_000
        mtime_ns = min(max(created_ns, 0), time.time_ns() - _MARK_AGE_NS)
        os.utime(self._staged, ns=(mtime_ns, mtime_ns))
        sync_path(self._staged)

    def _attempt(self, overwrite: bool) -> Outcome | None:
        """Try to publish once; None if another process interfered."""
        self._refuse_unless_folder(self._name_folder)
        there = self._refuse_unless_folder(self._target)
        if there is None:
            return Outcome.IMPORTED if self._publish(None) else None
        self._refuse_unfinished()
        entries, difference, other_exec_bit = self._look()
        if difference is None and not (overwrite and other_exec_bit):
            note_exec_bit(self._tag, other_exec_bit)
            self._remove_staged(entries)
            return Outcome.UNCHANGED
        if not overwrite:
            raise OtherContentError(
                f"{self._tag} is in the store with other content ({difference}): import with --overwrite to replace "
                f"it, or delete it first: bentoml models delete {self._tag}"
            )
        if not self._publish((there.st_dev, there.st_ino)):
            return None
        self._remove_staged(entries)  # the exchange has put the old model there
        return Outcome.REPLACED

    def _refuse_unless_folder(self, path: str) -> os.stat_result | None:
        """Return the stat of the directory at a path; None if nothing is there.

        Raises:
            ModelExistsError: it is not a directory.
        """
        with writing(path):
            try:
                look = os.lstat(path)
            except FileNotFoundError:
                return None
        if not stat.S_ISDIR(look.st_mode):
            raise ModelExistsError(f"{printable(path)} is in the way, since it is not a folder: remove it first")
        return look

    def _refuse_unfinished(self) -> None:
        """Raise ModelExistsError if the store's model is not complete. Wait for an empty directory: it may reserve the
        place of another import's model (on systems without renameat2)."""
        surveyor = Scanner(self._storage, lambda _path, sentence: log.debug("%s", sentence))
        deadline = time.monotonic() + _CLAIM_SECONDS
        while True:
            version = surveyor.look(self._tag.name, None).versions.get(self._tag.version)
            if version is not None and version.state is State.COMPLETE:
                return
            if time.monotonic() > deadline or not self._is_empty():
                break
            time.sleep(_CLAIM_SECONDS / 50)
        raise ModelExistsError(
            f"{self._tag} is being saved by BentoML just now, or a save was interrupted: import it again when that "
            f"is done, or delete {printable(self._target)}"
        )

    def _is_empty(self) -> bool:
        """Tell whether the version's directory is empty or gone."""
        with writing(self._target):
            try:
                return not os.listdir(self._target)
            except FileNotFoundError:
                return True

    def compare(self) -> Verdict | None:
        """Do what the function `compare` does."""
        if self._refuse_unless_folder(self._target) is None:
            return None
        self._refuse_unfinished()
        return self._look()

    def _look(self) -> Verdict:
        """Compare with the store's model; if it is the same, sync it to disk."""
        try:
            entries = sorted(self._storage.walk(self._tag.path)[0], key=lambda entry: entry.path)
        except BadModelError as error:
            return Verdict([], str(error))
        if self._verdict is not None and self._verdict.entries == entries:
            return self._verdict
        staged = LocalStorage(os.path.dirname(self._staged))
        staged_entries, _ = staged.walk(os.path.basename(self._staged))
        path = first_difference(self._storage, entries, staged, staged_entries)
        if path is None:
            self._sync(entries)
            return Verdict(entries, None, first_other_exec_bit(entries, staged_entries))
        return Verdict(entries, f"{printable(path)} differs")

    def _remove_staged(self, entries: list[Entry]) -> None:
        """Remove the staged directory. Remove a large one in the background: the import need not wait for it, and
        during a rename all of incoming/ would wait."""
        aside = self._session.put_aside(self._staged)
        if len(entries) < _LARGE_COUNT and sum(entry.size for entry in entries) < _LARGE_SIZE:
            remove_tree(aside)
            return
        threading.Thread(target=remove_tree, args=(aside,), name="remove", daemon=True).start()

    def _sync(self, entries: list[Entry]) -> None:
        """Sync the store's model to disk. BentoML does not sync what it saves; a successful import guarantees it."""
        with writing(self._target):
            folder = os.open(self._target, FOLDER)
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
            for path in (self._name_folder, self._store):
                sync_path(path)

    def _publish(self, replaced: tuple[int, int] | None) -> bool:
        """Move the staged directory to its place; `replaced`: device and inode of the directory that it replaces. False
        if another directory is there now."""
        with writing(self._session.intents):
            intent = JournalEntry.begin(
                self._store, self._session.intents, self._tag, self._staged, move_latest=self._move_latest
            )
        try:
            placed = self._place(intent, replaced)
        except BaseException:
            self._undo(intent)
            raise
        if not placed:
            self._undo(intent)
            return False
        self._finish(intent)
        return True

    def _place(self, intent: JournalEntry, replaced: tuple[int, int] | None) -> bool:
        made = False
        with writing(self._name_folder):
            with suppress(FileExistsError):
                os.mkdir(self._name_folder)
                made = True
                sync_path(self._store)
            try:
                folder = os.open(self._name_folder, FOLDER)
            except FileNotFoundError:
                return False
        try:
            with writing(self._target):
                try:
                    if replaced is None:
                        intent.place(self._staged, folder)
                    elif not self._replace(intent, folder, replaced):
                        return False
                except FileExistsError:
                    return False
                except FileNotFoundError:  # the name's directory or the old version is gone
                    os.lstat(self._staged)
                    return False
                os.fsync(folder)
                sync_path(self._store)
        except BaseException:
            if made:
                with suppress(OSError):  # not empty
                    os.rmdir(self._name_folder)
            raise
        finally:
            os.close(folder)
        return True

    def _replace(self, intent: JournalEntry, folder: int, replaced: tuple[int, int]) -> bool:
        version = self._tag.version
        try:
            exchange(self._staged, folder, version)
        except OSError as error:
            if not is_unsupported(error):
                raise
            os.rename(version, intent.old, src_dir_fd=folder)
            if not _is(intent.old, replaced):
                return False
            intent.place(self._staged, folder)
            return True
        if _is(self._staged, replaced):
            self._staged = self._session.put_aside(self._staged)
            return True
        exchange(self._staged, folder, version)
        return False

    def _finish(self, intent: JournalEntry) -> None:
        """Update `latest` and end the intent. The model is in its place, so a failure here is no error of the
        import."""
        try:
            intent.finish_latest(self._lock, self._session.new_staged_path())
            intent.end(self._session.new_staged_path())
        except (OSError, StoreError) as error:
            log.warning("%s is in the store, but whether it is the latest is not settled: %s", self._tag, error)

    def _undo(self, intent: JournalEntry) -> None:
        try:
            intent.settle(self._lock, self._session.new_staged_path())
        except (OSError, StoreError) as error:
            log.warning("what importing %s has begun in the store could not be undone yet: %s", self._tag, error)

    def _lock(self) -> AbstractContextManager[None]:
        return self._session.area.locked("latest")


def _is(path: str, identity: tuple[int, int]) -> bool:
    look = os.lstat(path)
    return (look.st_dev, look.st_ino) == identity
