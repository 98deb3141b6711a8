"""Upload: one file in `incoming/`, its state, and its staging, which follows while its bytes still arrive.

While bytes come in order, a run reads behind them and stages them, so that little is left to do at the end. If they
come in another order (a zip's header written last, a resumed file), or if memory is short, one run stages everything at
the end.

`mount.incoming.upload_state` has the states and the allowed transitions. Only the verbs of this class change the state.

Knows no FUSE. Threading: any thread. `_lock` guards the state, the run and the number of changes. No lock is held while
bytes are staged or written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bentofs.mount.incoming.receipts import UploadReceipt
from bentofs.mount.incoming.staging_run import Stager, StagingRun
from bentofs.mount.incoming.upload_facts import UploadFacts
from bentofs.mount.incoming.upload_file import UploadFile
from bentofs.mount.incoming.upload_reader import UploadReader
from bentofs.mount.incoming.upload_state import UploadState, moved
from bentofs.store.errors import CancelledError, DamagedArchiveError, PostponedError, StoreError
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.util.display import printable


class Upload(UploadFacts):
    """One file in `incoming/`, from its creation or next change until it is imported or removed."""

    def __init__(self, path: str, file: UploadFile, uid: int, receipt: UploadReceipt, stager: Stager) -> None:
        """`path`: below `incoming/`; `file` is closed by this object."""
        super().__init__(path, file, uid, receipt)
        self._stager = stager
        self._lock = threading.Lock()
        self._deciding = threading.Lock()
        self._staging = threading.Lock()
        self._state = UploadState.RECEIVING
        self._lost: CancelledError | None = None  # why it has lost its name
        self._lost_to = UploadState.REMOVED  # the state in which that leaves it
        self._changes = 0
        self._taken_at = -1  # number of the last change in the model
        self._run: StagingRun | None = None
        self._denied: BaseException | None = None  # why the last write was refused
        self._is_fresh = file.size == 0

    @property
    def state(self) -> UploadState:
        """Return the state. It may change at any time."""
        return self._state

    @property
    def lost(self) -> CancelledError | None:
        """The error that says why the file has lost its name; None while it has it."""
        return self._lost

    @property
    def is_imported(self) -> bool:
        """True if its model is in the store."""
        return self._state is UploadState.IMPORTED

    @property
    def holds_model(self) -> bool:
        """True if the bytes are known to be an archive of a model, even one that is refused."""
        run = self._run
        return run is not None and run.holds_model

    @property
    def unread(self) -> int:
        """Return the number of bytes that are here and not staged yet."""
        run = self._run
        return run.arriving.unread if run is not None else 0

    def includes(self, change: int) -> bool:
        """Return True if a change was the last one before the model was taken."""
        return self._taken_at == change

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Decide the outcome in this block. One thread at a time does.

        Raises:
            CancelledError: the file has lost its name.
        """
        with self._deciding:
            if self._lost is not None and not self.is_imported:
                raise self._lost
            yield

    def write(self, view: memoryview, offset: int) -> int:
        """Write all of the view. Return the number of this change.

        Raises:
            StoreError: it is already known that this upload cannot be imported.
            NoSpaceError: there is no room.
            TooBigError: it has too many gaps.
            OSError: it cannot be written.
        """
        self.file.refuse_behind_failure(offset)
        allocates = self.kind.is_archive and self.file.is_allocation(offset, view)
        with self._lock:
            self._refuse_if_taken()
            if self._is_fresh and offset == 0 and self.kind.is_archive and self._run is None and not allocates:
                self._run = self._stager.early(self.file.fileno())
            run = self._run
            fails = run is not None and self.kind.fails_early and not self._state.is_decided
            known = run.error if run is not None and fails else None
        if known is not None and not isinstance(known, PostponedError) and not self._may_be_mended(known):
            self._denied = known
            raise known
        self._denied = None
        self._is_fresh = self._is_fresh and allocates
        self.allow_replacing()
        self.mark.show_whole()
        self.file.write(self.path, view, offset, allocates=allocates)
        change = self._changed(run, lambda arriving: arriving.wrote(offset, offset + len(view)))
        self.file.note_written(offset, view, allocates=allocates)
        return change

    def truncate(self, length: int) -> int:
        """Set the length. Return the number of this change."""
        with self._lock:
            self._refuse_if_taken()
            run = self._run
        self.allow_replacing()
        self.mark.show_whole()
        if not self.file.resize(length):
            return self._changes
        self._is_fresh = self._is_fresh or length == 0
        return self._changed(run, lambda _arriving: False)

    def skip(self, offset: int, length: int) -> None:
        """Do what `UploadFile.skip` does."""
        with self._lock:
            self._refuse_if_taken()
        self.allow_replacing()
        self.file.skip(offset, length)

    def staged(self) -> StagedImport:
        """Return the staged import of the bytes. Wait until it is ready. The state is CHECKED then.

        Raises:
            StoreError: why the bytes cannot be imported.
        """
        unwritten = self.file.unwritten()
        if unwritten is None:
            return self._staged()
        if self._denied is not None:  # bsdtar sets the full length after a write that failed
            raise self._denied
        if not self.file.may_be_zip():
            raise unwritten
        try:
            return self._staged()  # each byte has a CRC-32, even a zero that was skipped
        except DamagedArchiveError:
            raise unwritten from None

    def take(self) -> StagedImport:
        """Return the result of `staged`. It now belongs to the caller, who publishes it: this upload no longer discards
        it, and refuses further writes.

        Raises:
            CancelledError: the upload was changed or removed since.
        """
        with self._lock:
            run = self._run
            ready = run.take() if run is not None and self._state is UploadState.CHECKED else None
            if ready is not None:
                self._move_to(UploadState.PUBLISHING)
                self._taken_at = self._changes
        if ready is None:
            raise self._was_changed()
        return ready

    def keep(self) -> None:
        """Let the file stay: it is no archive, and nothing is wrong with it."""
        with self._lock:
            if self._lost is None and self._state is not UploadState.KEPT:
                self._move_to(UploadState.KEPT)
        self.mark.set(False)

    def refuse(self, error: Exception, *, is_shown: bool) -> None:
        """Note that the program is told why these bytes are no model. `is_shown`: mark the file, so that tools send it
        again (`mount.incoming.undecided`)."""
        with self._lock:
            if self._state is UploadState.PUBLISHING and self._run is not None:
                self._run.abandon(error)  # so the same bytes are refused again
            if self._lost is None:
                if self._state is not UploadState.REFUSED:
                    self._move_to(UploadState.REFUSED)
            elif self._state is UploadState.PUBLISHING:
                self._move_to(self._lost_to)
        if is_shown:
            self.mark.set(True)
            self.mark.show_short()

    def reconsider(self) -> None:
        """Forget why the bytes were refused: the store may have changed since. They are staged anew."""
        with self._lock:
            run = self._run if self._state is UploadState.REFUSED else None
            self._run = None if run is not None else self._run
        if run is not None:
            run.abandon(CancelledError(f"{printable(self.path)} is decided anew"))

    def mark_imported(self) -> None:
        """Note that the model is in the store. Further writes fail."""
        with self._lock:
            self._move_to(UploadState.IMPORTED)
            run, self._run = self._run, None
        if run is not None:
            run.abandon(CancelledError(f"{printable(self.path)} has been imported already"))

    def lose_name(self, state: UploadState, why: str) -> None:
        """Note that the file lost its name. Programs that have it open keep its bytes. `state`: REMOVED or REPLACED. A
        model that is being published goes on."""
        with self._lock:
            if self._lost is not None:
                return
            self._lost, self._lost_to = CancelledError(why), state
            if self._state.takes_bytes:
                self._move_to(state)
        self.file.lose_name()

    def withdraw(self) -> None:
        """Record that the upload is not to be imported any more."""
        self.receipt.withdraw(str(self._lost or "it was not finished, or is a file of a directory"))

    def stop(self) -> None:
        """Stop staging, and remove what was staged. Do not wait for that. A model that is being published goes on."""
        with self._lock:
            run, self._run = self._run, None
            self._changes += 1
        if run is not None:
            run.abandon(CancelledError("the upload has gone"))

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            if self._state is UploadState.CLOSED:
                return
            self._move_to(UploadState.CLOSED)
        self.file.close()

    def _move_to(self, state: UploadState) -> None:
        self._state = moved(self._state, state)

    def _staged(self) -> StagedImport:
        with self._staging:
            with self._lock:
                if self._state.has_lost_name:
                    raise self._was_changed()
                self._move_to(UploadState.CHECKING)
                changes, early = self._changes, self._run
            run = None
            try:
                run = self._finished_run(early, changes)
            finally:
                with self._lock:
                    is_checking = self._state is UploadState.CHECKING
                    is_valid = is_checking and run is not None and self._run is run and changes == self._changes
                    if is_valid:
                        self._move_to(UploadState.CHECKED)
                    elif is_checking:
                        self._move_to(UploadState.RECEIVING)
                    if not is_valid and self._run in (early, run):
                        self._run = None
        if not is_valid:
            run.abandon(self._was_changed())
            raise CancelledError(f"{printable(self.path)} was changed while it was checked: copy it again")
        return run.outcome()

    def _finished_run(self, run: StagingRun | None, changes: int) -> StagingRun:
        """Return a run that has ended. Finish the given one, or start one if there is none, or if it was postponed."""
        size = self.file.size
        if run is not None:
            run.arriving.finish(size)
            run.wait()
            if not run.was_postponed:
                return run
        early = run
        late = self._stager.late(self.file.fileno(), size)
        with self._lock:
            is_first = self._run is early and changes == self._changes
            if is_first:
                self._run = late
        if not is_first:
            late.abandon(CancelledError(f"{printable(self.path)} was changed"))
        late.wait()
        return late

    def _changed(self, run: StagingRun | None, follows: Callable[[UploadReader], bool]) -> int:
        """Record a change of the bytes, and return its number. The staged result is kept only if the run can follow."""
        with self._lock:
            self._refuse_if_taken()  # just taken: these bytes are in no model
            was_open = self._state is UploadState.RECEIVING
            if not was_open and not self._state.has_lost_name:
                self._move_to(UploadState.RECEIVING)
            self._changes += 1
            change, current = self._changes, self._run
            if current is None or (current is run and was_open and follows(current.arriving)):
                return change
            self._run = None
        current.abandon(CancelledError(f"{printable(self.path)} was changed while it was staged"))
        return change

    def _may_be_mended(self, error: BaseException) -> bool:
        """Return True if later bytes may repair the damage: zip writers often put the sizes into the headers last."""
        return isinstance(error, DamagedArchiveError) and self.file.may_be_zip()

    def _refuse_if_taken(self) -> None:
        if not self._state.takes_bytes:
            raise CancelledError(f"{printable(self.path)} has been imported already: copy it anew to import it again")

    def _was_changed(self) -> StoreError:
        return CancelledError(f"{printable(self.path)} was changed or removed while it was imported: copy it again")
