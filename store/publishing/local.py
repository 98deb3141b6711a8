"""Publishing: a staged model becomes a version in the store, whole or not at all.

One rename puts it there, and never over anything: a plain rename would replace the empty directory that BentoML makes
when it begins to save. Without renameat2, an empty directory reserves the place for a moment, and an overwrite leaves a
moment without the model; `store/staging/journal.py` describes the recovery after a crash in that moment.

Threading: any thread; several processes may publish the same tag at once.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import AbstractContextManager, suppress

from bentofs.store.errors import NotFoundError, OtherContentError, SourceChangedError, StoreError, StoreUnwritableError
from bentofs.store.publishing.base import Outcome, PublishRequest, Verdict, note_exec_bit
from bentofs.store.publishing.present import PresentVersion
from bentofs.store.staging.journal import JournalEntry
from bentofs.store.staging.model import Staged
from bentofs.store.staging.session import Session
from bentofs.store.storage.base import Entry
from bentofs.store.util.fs import FOLDER, remove_tree, sync_path, writing
from bentofs.store.util.renameat2 import exchange, is_unsupported
from bentofs.store.util.threads import run_beside

log = logging.getLogger(__name__)

_ATTEMPTS = 20  # each fails only if another process changed the same version in the meantime
_LARGE_SIZE, _LARGE_COUNT = 256 << 20, 5000  # bytes, files: removing more takes noticeable time
_MARK_AGE_NS = 10_000_000_000  # more than the coarsest clock tick of a file system


class LocalPublisher:
    """Publishes to the store of a session's staging area, by a rename."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def compare(self, staged: Staged) -> Verdict | None:
        """Do what `Publisher.compare` does."""
        return PresentVersion(self._session.area.store, staged.info.tag).compare_early(staged.path)

    def publish(self, request: PublishRequest) -> Outcome:
        """Do what `Publisher.publish` does. The staged directory is gone on return. After an error it is still there,
        unless the last step failed: syncing the store's directories."""
        return _Publication(self._session, request).run()


class _Publication:
    """One call of `LocalPublisher.publish`."""

    def __init__(self, session: Session, request: PublishRequest) -> None:
        self._session = session
        self._request = request
        self._staged = request.staged.path
        self._tag = request.staged.info.tag
        self._store = session.area.store
        self._present = PresentVersion(self._store, self._tag)
        self._name_folder = self._present.name_folder
        self._target = self._present.path

    def run(self) -> Outcome:
        with writing(self._staged):
            self._mark_complete()
        for _ in range(_ATTEMPTS):
            with suppress(NotFoundError, SourceChangedError):  # another process changes it: look again
                outcome = self._attempt()
                if outcome is not None:
                    return outcome
        raise StoreUnwritableError(f"{self._tag} was changed several times during the import: try again")

    def _mark_complete(self) -> None:
        """Set BentoML's own mark of a finished save: the directory's mtime differs from its ctime."""
        created_ns = int(self._request.staged.info.creation_time.timestamp()) * 1_000_000_000
        mtime_ns = min(max(created_ns, 0), time.time_ns() - _MARK_AGE_NS)
        os.utime(self._staged, ns=(mtime_ns, mtime_ns))
        sync_path(self._staged)

    def _attempt(self) -> Outcome | None:
        """Try to publish once; None if another process interfered."""
        there = self._present.find()
        if there is None:
            return Outcome.IMPORTED if self._publish(None) else None
        self._present.refuse_unfinished()
        entries, difference, other_exec_bit = self._present.compare(self._staged, self._request.verdict)
        if difference is None and not (self._request.overwrite and other_exec_bit):
            note_exec_bit(self._tag, other_exec_bit)
            self._remove_staged(entries)
            return Outcome.UNCHANGED
        if not self._request.overwrite:
            raise OtherContentError(
                f"{self._tag} is in the store with other content ({difference}): import with --overwrite to replace "
                f"it, or delete it first: bentoml models delete {self._tag}"
            )
        if not self._publish((there.st_dev, there.st_ino)):
            return None
        self._remove_staged(entries)  # the exchange has put the old model there
        return Outcome.REPLACED

    def _remove_staged(self, entries: list[Entry]) -> None:
        """Remove the staged directory. Remove a large one in the background: the import need not wait for it, and
        during a rename all of incoming/ would wait."""
        aside = self._session.put_aside(self._staged)
        if len(entries) < _LARGE_COUNT and sum(entry.size for entry in entries) < _LARGE_SIZE:
            remove_tree(aside)
            return
        run_beside(lambda: remove_tree(aside), "remove")

    def _publish(self, replaced: tuple[int, int] | None) -> bool:
        """Move the staged directory to its place; `replaced`: device and inode of the directory that it replaces. False
        if another directory is there now."""
        with writing(self._session.intents):
            intent = JournalEntry.begin(
                self._store, self._session.intents, self._tag, self._staged, move_latest=self._request.move_latest
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
            log.warning("%s is in the store, but its `latest` may be out of date: %s", self._tag, error)

    def _undo(self, intent: JournalEntry) -> None:
        try:
            intent.settle(self._lock, self._session.new_staged_path())
        except (OSError, StoreError) as error:
            log.warning("the unfinished import of %s could not be undone yet: %s", self._tag, error)

    def _lock(self) -> AbstractContextManager[None]:
        return self._session.area.locked("latest")


def _is(path: str, identity: tuple[int, int]) -> bool:
    look = os.lstat(path)
    return (look.st_dev, look.st_ino) == identity
