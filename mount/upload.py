"""Upload: the bytes of one file in `incoming/`, and their staging, which follows while they still arrive.

While bytes come in order, a run reads behind them and stages what they hold, so that little is left to do at the end.
Where they come otherwise (a zip's header written last, a file that is resumed), or memory is short, one run does it all
at the end.

Knows no FUSE. Threading: any thread; locks are never held while staging or writing.
"""

from __future__ import annotations

import errno
import os
import threading
import traceback
from collections.abc import Callable

from mount.memory import DecoderMemory
from store.archive.arriving import ArrivingFile
from store.errors import CancelledError, DamagedArchiveError, NoSpaceError, PostponedError, StoreError
from store.importing import StagedImport
from store.text import printable

_AHEAD_KEPT = 1000  # runs of bytes that arrived ahead of a gap
_EARLY_RUNS = 4  # uploads that are staged while they arrive
_BATCH = 1 << 20  # bytes that are waited for at once: each time that a reader wakes costs the writer
_LATE_RUNS = 2  # that are staged once all is there: these wait for nobody else, so each gets its turn

Stage = Callable[[ArrivingFile], StagedImport]


class Arriving:
    """A file that is still being written, for those who read behind the writer (`ArrivingFile`)."""

    def __init__(self, descriptor: int, memory: DecoderMemory) -> None:
        self._descriptor = descriptor
        self._memory = memory
        self._condition = threading.Condition()
        self._available = 0  # bytes from the start without a gap
        self._ahead: dict[int, int] = {}  # start -> end of what arrived beyond a gap
        self._consumed = 0  # how far any reader has got
        self._length: int | None = None
        self._stopped: CancelledError | None = None  # what readers get

    def wrote(self, start: int, end: int) -> bool:
        """Take note of bytes that were written; False if a reader may have seen what was there before, or the end."""
        with self._condition:
            if self._length is not None or start < self._consumed or len(self._ahead) > _AHEAD_KEPT:
                return False
            if start <= self._available:
                self._available = max(self._available, end)
                while self._available in self._ahead:
                    self._available = self._ahead.pop(self._available)
                if self.unread >= _BATCH:
                    self._condition.notify_all()
            else:
                self._ahead[start] = max(end, self._ahead.get(start, 0))
            return True

    def finish(self, length: int) -> None:
        """All is there: `length` bytes; what was never written is zeros."""
        with self._condition:
            self._length = self._available = length
            self._condition.notify_all()

    def cancel(self) -> None:
        """Have the readers stop."""
        with self._condition:
            self._stopped = CancelledError("the upload has gone")
            self._condition.notify_all()
        self._memory.look_again()

    def postpone(self) -> None:
        """Have the readers stop, unless all is there: another run will read it all."""
        with self._condition:
            if not self.is_whole and self._stopped is None:
                self._stopped = PostponedError("there is no memory to stage the upload while it arrives")
                self._condition.notify_all()

    def check(self) -> None:
        """Raise what the readers are to stop by."""
        if self._stopped is not None:
            raise self._stopped

    @property
    def is_whole(self) -> bool:
        """Whether all is there."""
        return self._length is not None

    @property
    def unread(self) -> int:
        """Bytes that are there and no reader has seen, or that another one will have to read."""
        return self._available - (self._consumed if self._stopped is None else 0)

    def read_into(self, view: memoryview, offset: int) -> int:
        """As `ArrivingFile.read_into`."""
        with self._condition:
            if offset >= self._available:
                wanted = offset + _BATCH
                self._condition.wait_for(
                    lambda: wanted <= self._available or self._length is not None or self._stopped is not None
                )
            self.check()
            count = min(len(view), self._available - offset)
            self._consumed = max(self._consumed, offset + count)
        return os.preadv(self._descriptor, [view[:count]], offset) if count > 0 else 0

    def length(self) -> int:
        """As `ArrivingFile.length`."""
        with self._condition:
            while self._length is None:
                self.check()
                self._condition.wait()
            return self._length

    def fileno(self) -> int:
        """As `ArrivingFile.fileno`."""
        return self._descriptor

    def take_memory(self, amount: int) -> int:
        """As `ArrivingFile.take_memory`."""
        self._memory.take(self, amount)
        return amount


class Slots:
    """How many uploads are staged at once, and what memory they share."""

    def __init__(self) -> None:
        self.memory = DecoderMemory()
        self.early = threading.Semaphore(_EARLY_RUNS)
        self.late = threading.Semaphore(_LATE_RUNS)


class _Run:
    """One try to stage an upload, in a thread of its own."""

    def __init__(self, descriptor: int, stage: Stage, slot: threading.Semaphore, memory: DecoderMemory) -> None:
        """The run gives `slot` back when it ends."""
        self._own_descriptor = os.dup(descriptor)
        self._memory = memory
        self.arriving = Arriving(self._own_descriptor, memory)
        self._stage = stage
        self._slot = slot
        self._lock = threading.Lock()
        self._abandoned = False
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="staging", daemon=True)
        self.result: StagedImport | None = None
        self.error: BaseException | None = None

    @property
    def was_postponed(self) -> bool:
        """Whether it has ended since there was no memory for it, and another run must do all of it at the end."""
        return isinstance(self.error, PostponedError)

    def start(self) -> None:
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()

    def outcome(self) -> StagedImport:
        """What was staged; raises what went wrong."""
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise RuntimeError("staging has not ended")
        return self.result

    def take(self) -> StagedImport | None:
        """What was staged, which is no longer the run's."""
        with self._lock:
            result, self.result = self.result, None
            return result

    def abandon(self, error: StoreError) -> None:
        """Nobody wants it any more: it ends as soon as it can, and leaves nothing. Does not wait for that."""
        self.arriving.cancel()
        with self._lock:
            self._abandoned = True
            ended, result, self.result = self._ended, self.result, None
            self.error = self.error or error
        if ended and result is not None:
            threading.Thread(target=result.discard, name="discard", daemon=True).start()

    def _work(self) -> None:
        result: StagedImport | None = None
        error: BaseException | None = None
        try:
            result = self._stage(self.arriving)
        except BaseException as failed:  # handed to whoever waits for the outcome
            error = failed
            _clear_frames(failed)
        finally:
            os.close(self._own_descriptor)
            self._memory.give_back(self.arriving)
            self._slot.release()
        with self._lock:
            self._ended = True
            if not self._abandoned:
                self.result, self.error = result, error
                return
        if result is not None:
            result.discard()


def _clear_frames(error: BaseException | None) -> None:
    """Have an exception, which may be kept for long, not keep a decoder and its memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


class Upload:
    """One file in `incoming/`, from its creation, or its first change since, until it is imported or removed."""

    def __init__(self, path: str, descriptor: int, uid: int, stage: Stage, slots: Slots) -> None:
        """`path`: below `incoming/`; `descriptor` will be closed here."""
        self.path = path
        self.uid = uid
        self.handles = 0
        self.receipt: int | None = None  # its number in the record of imports
        self.imported = False
        self.gone: CancelledError | None = None  # why it is no longer under its name
        self.is_replaced = False  # since another program's file is
        self.taken: os.stat_result | None = None  # the file as it is being published
        self.taken_at = -1  # the number of the last change that is in the model
        self.refusal: StoreError | None = None  # what was told last
        self.failure: StoreError | OSError | None = None  # why the last bytes are missing
        self.deciding = threading.Lock()  # held while the outcome is made
        self.is_archive = False  # whether to import it
        self.is_strict = False  # whether it is a mistake if it holds no model
        self.fails_early = False  # whether what is known of the end already fails a write
        self._descriptor = descriptor
        self._stage = stage
        self._slots = slots
        self.is_open = True
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._changes = 0
        self._settled_at = -1  # the number of changes that the outcome is of
        self._run: _Run | None = None
        look = os.fstat(descriptor)
        self.inode = look.st_ino
        self._fresh = look.st_size == 0

    @property
    def is_settled(self) -> bool:
        """Whether it is known what became of these bytes."""
        with self._lock:
            return self._settled_at == self._changes

    @property
    def unread(self) -> int:
        """Bytes that are here and not staged yet."""
        run = self._run
        return run.arriving.unread if run is not None else 0

    def status(self) -> os.stat_result:
        """Of the file that holds the bytes."""
        return os.fstat(self._descriptor)

    def write(self, view: memoryview, offset: int) -> int:
        """Write all of the view; the number of this change.

        Raises:
            StoreError: it is known already that nothing can become of this upload.
            NoSpaceError: there is no room.
        """
        with self._lock:
            self._refuse_if_imported()
            if self._fresh and offset == 0 and self.is_archive and self._run is None:
                self._begin_early()
            run = self._run
            known = run.error if run is not None and self.fails_early and self._settled_at != self._changes else None
        if known is not None and not isinstance(known, PostponedError) and not self._may_be_mended(known):
            raise known
        self._fresh = False
        try:
            written = os.pwrite(self._descriptor, view, offset)
            while written < len(view):
                written += os.pwrite(self._descriptor, view[written:], offset + written)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"{printable(self.path)}: there is no room left for the upload") from None
            raise
        return self._changed(run, lambda arriving: arriving.wrote(offset, offset + written))

    def truncate(self, length: int) -> int:
        """Make it so long; the number of this change."""
        with self._lock:
            self._refuse_if_imported()
            run = self._run
        if length == os.fstat(self._descriptor).st_size:
            return self._changes
        os.ftruncate(self._descriptor, length)
        self._fresh = length == 0
        return self._changed(run, lambda _arriving: False)

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read back what was written: the number of bytes, fewer than asked for only at the end."""
        got = 0
        while got < len(view):
            more = os.preadv(self._descriptor, [view[got:]], offset + got)
            if not more:
                break
            got += more
        return got

    def sync(self) -> None:
        """Have the bytes survive a loss of power."""
        os.fsync(self._descriptor)

    def settle(self) -> StagedImport:
        """What the bytes hold, staged; waits until it is known.

        Raises:
            StoreError: why they cannot be imported.
        """
        with self._settling:
            with self._lock:
                changes, run = self._changes, self._run
            size = os.fstat(self._descriptor).st_size
            if run is not None:
                run.arriving.finish(size)
                run.wait()
            if run is None or run.was_postponed:
                early = run
                self._slots.late.acquire()
                run = self._new_run(self._slots.late, size)
                with self._lock:
                    is_first = self._run is early and changes == self._changes
                    if is_first:
                        self._run = run
                if not is_first:
                    run.abandon(CancelledError(f"{printable(self.path)} was changed"))
                run.wait()
            with self._lock:
                is_valid = self._run is run and changes == self._changes
                if is_valid:
                    self._settled_at = changes
                elif self._run is run:
                    self._run = None
        if not is_valid:
            run.abandon(CancelledError(f"{printable(self.path)} was changed"))
            raise CancelledError(f"{printable(self.path)} was changed while it was checked: copy it again")
        return run.outcome()

    def take(self) -> StagedImport:
        """What `settle` gave, which from now on is the caller's: nothing that happens here discards it, and nothing is
        written here any more.

        Raises:
            CancelledError: the upload was changed or removed since.
        """
        with self._lock:
            run = self._run
            ready = run.take() if run is not None and self._settled_at == self._changes and self.gone is None else None
            if ready is not None:
                self.taken, self.taken_at = os.fstat(self._descriptor), self._changes
        if ready is None:
            raise CancelledError(f"{printable(self.path)} was changed or removed while it was imported: copy it again")
        return ready

    def refuse(self, error: StoreError) -> None:
        """These bytes are not to be imported, for a reason that staging could not know."""
        with self._lock:
            self.taken = None
            if self._run is not None:
                self._run.abandon(error)

    def mark_imported(self) -> None:
        """Nothing may be written any more."""
        with self._lock:
            self.imported = True
            run, self._run = self._run, None
        if run is not None:  # begun by bytes that came too late
            run.abandon(CancelledError(f"{printable(self.path)} has been imported already"))

    def stop(self) -> None:
        """Stop staging, and remove what was staged, without waiting for that."""
        with self._lock:
            run, self._run = self._run, None
            self._changes += 1
        if run is not None:
            run.abandon(CancelledError("the upload has gone"))

    def close(self) -> None:
        """Close the file; once, however often it is asked for."""
        with self._lock:
            was_open, self.is_open = self.is_open, False
        if was_open:
            os.close(self._descriptor)

    def _begin_early(self) -> None:
        if self._slots.early.acquire(blocking=False):
            self._run = self._new_run(self._slots.early)

    def _new_run(self, slot: threading.Semaphore, length: int | None = None) -> _Run:
        """`length`: of the file in bytes, if all of it is there."""
        try:
            run = _Run(self._descriptor, self._stage, slot, self._slots.memory)
            if length is not None:
                run.arriving.finish(length)
            run.start()
        except BaseException:
            slot.release()
            raise
        return run

    def _changed(self, run: _Run | None, follows: Callable[[Arriving], bool]) -> int:
        """The bytes have changed: what was staged holds only if the run can follow. The number of the change."""
        with self._lock:
            self._refuse_if_imported()  # taken just now: these bytes are in no model
            was_settled = self._settled_at == self._changes
            self._changes += 1
            change, current = self._changes, self._run
            if current is None or (current is run and not was_settled and follows(current.arriving)):
                return change
            self._run = None
        current.abandon(CancelledError(f"{printable(self.path)} was changed while it was staged"))
        return change

    def _may_be_mended(self, error: BaseException) -> bool:
        """Whether bytes that are still to come may make good what is wrong: who writes a zip often puts sizes into its
        headers at last."""
        return isinstance(error, DamagedArchiveError) and os.pread(self._descriptor, 2, 0) == b"PK"

    def _refuse_if_imported(self) -> None:
        if self.imported or self.taken is not None:
            raise CancelledError(f"{printable(self.path)} has been imported already: copy it anew to import it again")
