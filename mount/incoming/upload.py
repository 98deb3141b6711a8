"""Upload: the bytes of one file in `incoming/`, and their staging, which follows while they still arrive.

While bytes come in order, a run reads behind them and stages them, so that little is left to do at the end. If they
come in another order (a zip's header written last, a resumed file), or if memory is short, one run stages everything at
the end.

Knows no FUSE. Threading: any thread. No lock is held while bytes are staged or written.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from bentofs.mount.incoming.control_files import is_control_file
from bentofs.mount.incoming.staging_run import Run, Slots, Stage
from bentofs.mount.incoming.undecided import append_offset, is_undecided, set_undecided
from bentofs.mount.incoming.upload_reader import UploadReader
from bentofs.mount.incoming.written_ranges import WrittenRanges
from bentofs.store.errors import (
    CancelledError,
    DamagedArchiveError,
    NoSpaceError,
    PostponedError,
    StoreError,
    UnwrittenBytesError,
)
from bentofs.store.transfer.importer import StagedImport
from bentofs.store.util.display import printable


class Upload:
    """One file in `incoming/`, from its creation or next change until it is imported or removed."""

    def __init__(
        self, path: str, descriptor: int, uid: int, stage: Stage, slots: Slots, written: WrittenRanges
    ) -> None:
        """`path`: below `incoming/`; `descriptor` and `written` are closed by this object."""
        self.path = path
        self.uid = uid
        self.handles = 0
        self.receipt: int | None = None  # number of its receipt in the record of imports
        self.refused_as: int | None = None  # number of its receipt when it was refused
        self.imported = False
        self.imported_as: int | None = None  # number of the receipt of its import
        self.gone: CancelledError | None = None  # why it has lost its name
        self.is_replaced = False  # another program's file has its name
        self.may_replace = True  # may replace another model of its tag, in mounts that overwrite
        self.taken: os.stat_result | None = None  # stat of the file that is being published
        self.taken_at = -1  # number of the last change in the model
        self.refusal: StoreError | None = None  # the last error that was told
        self.failure: StoreError | OSError | None = None  # why bytes are missing
        self._failed_at = 0  # offset of the missing bytes
        self._denied: BaseException | None = None  # why the last write was refused
        self.deciding = threading.Lock()  # held while the outcome is decided
        self.is_archive = False  # True if it is to be imported
        self.is_strict = False  # True if it must hold a model
        self.is_touched = False  # its times were set to now: `touch` does so to make an empty file
        self.fails_early = False  # True if a known error already fails a write
        self._descriptor = descriptor
        self._stage = stage
        self._slots = slots
        self.written = written
        self.is_open = True
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._changes = 0
        self._settled_at = -1  # number of changes at the time of the outcome
        self._run: Run | None = None
        look = os.fstat(descriptor)
        self.inode = look.st_ino
        self.is_undecided = is_undecided(look)  # must not look complete to its tool (`mount.incoming.undecided`)
        self.is_short = self.is_undecided  # it is shown shorter than it is: nobody writes to it
        self._fresh = look.st_size == 0

    @property
    def is_settled(self) -> bool:
        """True if the outcome of these bytes is known."""
        with self._lock:
            return self._settled_at == self._changes

    @property
    def unread(self) -> int:
        """Return the number of bytes that are here and not staged yet."""
        run = self._run
        return run.arriving.unread if run is not None else 0

    @property
    def holds_model(self) -> bool:
        """True if the bytes are known to be an archive of a model, even one that is refused."""
        run = self._run
        return run is not None and run.holds_model

    def status(self) -> os.stat_result:
        """Return the stat result of the file that holds the bytes."""
        return os.fstat(self._descriptor)

    def is_control_file(self, path_on_disk: str) -> bool:
        """Return True if this is a downloader's control file."""
        return is_control_file(path_on_disk, self._descriptor)

    def write(self, view: memoryview, offset: int) -> int:
        """Write all of the view. Return the number of this change.

        Raises:
            StoreError: it is already known that this upload cannot be imported.
            NoSpaceError: there is no room.
            TooBigError: it has too many gaps.
            OSError: it cannot be written. From then on, nothing is written behind that offset: a program that goes on
                anyway would leave a hole of zeros.
        """
        if self.failure is not None and offset > self._failed_at:
            raise self.failure
        allocates = self.is_archive and self.written.is_allocation(offset, view)
        with self._lock:
            self._refuse_if_imported()
            if self._fresh and offset == 0 and self.is_archive and self._run is None and not allocates:
                self._begin_early()
            run = self._run
            known = run.error if run is not None and self.fails_early and self._settled_at != self._changes else None
        if known is not None and not isinstance(known, PostponedError) and not self._may_be_mended(known):
            self._denied = known
            raise known
        self._denied = None
        self._fresh = self._fresh and allocates
        self.is_short = False
        try:
            self.written.before_write(offset, allocates=allocates)
            written = os.pwrite(self._descriptor, view, offset)
            while written < len(view):
                written += os.pwrite(self._descriptor, view[written:], offset + written)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"{printable(self.path)}: there is no room left for the upload") from None
            raise
        if self.failure is not None and offset + written > self._failed_at:
            self.failure = None
        change = self._changed(run, lambda arriving: arriving.wrote(offset, offset + written))
        self.written.after_write(offset, view, allocates=allocates)
        return change

    def fail(self, error: StoreError | OSError, offset: int) -> None:
        """Record that bytes could not be written at an offset."""
        self._failed_at = offset if self.failure is None else min(offset, self._failed_at)
        self.failure = error

    def truncate(self, length: int) -> int:
        """Set the length. Return the number of this change."""
        with self._lock:
            self._refuse_if_imported()
            run = self._run
        if length <= self._failed_at:
            self.failure = None
        self.is_short = False
        if length == os.fstat(self._descriptor).st_size:
            return self._changes
        self.written.before_resize(length)
        os.ftruncate(self._descriptor, length)
        self._fresh = self._fresh or length == 0
        return self._changed(run, lambda _arriving: False)

    def skip(self, offset: int, length: int) -> None:
        """Note zeros behind the end that the program will not write.

        Raises:
            OSError: the range is not behind the end.
        """
        with self._lock:
            self._refuse_if_imported()
        if offset < os.fstat(self._descriptor).st_size:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self.written.skip(offset, offset + length)

    def read_into(self, view: memoryview, offset: int) -> int:
        """Read back written bytes. Return their number. It is less than asked for only at the end."""
        got = 0
        while got < len(view):
            more = os.preadv(self._descriptor, [view[got:]], offset + got)
            if not more:
                break
            got += more
        return got

    def duplicate(self) -> int:
        """Return another descriptor of the file."""
        return os.dup(self._descriptor)

    def mark(self, undecided: bool) -> None:
        """Mark the file as undecided, or clear the mark."""
        if undecided != self.is_undecided:
            set_undecided(self._descriptor, undecided)
            self.is_undecided = undecided
        self.is_short = self.is_short and undecided

    def mark_refused(self) -> None:
        """Mark the file as undecided and show it short."""
        self.mark(True)
        self.is_short = True

    def append_offset(self, view: memoryview, offset: int, *, goes_on: bool) -> int:
        """Return the offset at which to write for a program that appends; `goes_on`: it has written before."""
        if self.is_short and not goes_on:
            return append_offset(self._descriptor, view, offset)
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Sync the bytes to disk."""
        os.fsync(self._descriptor)
        self.written.sync()

    def settle(self) -> StagedImport:
        """Return the staged import of the bytes. Wait until it is ready.

        Raises:
            StoreError: why the bytes cannot be imported.
        """
        unwritten = self._unwritten()
        if unwritten is None:
            return self._settle()
        if self._denied is not None:  # bsdtar sets the full length after a write that failed
            raise self._denied
        if not self._may_be_zip():
            raise unwritten
        try:
            return self._settle()  # each byte has a CRC-32, even a zero that was skipped
        except DamagedArchiveError:
            raise unwritten from None

    def _settle(self) -> StagedImport:
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
        """Return the result of `settle`. It now belongs to the caller: this upload no longer discards it, and refuses
        further writes.

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
        """Refuse to import these bytes, for a reason that staging could not know."""
        with self._lock:
            self.taken = None
            if self._run is not None:
                self._run.abandon(error)

    def mark_imported(self) -> None:
        """Mark the upload as imported. Further writes fail."""
        with self._lock:
            self.imported = True
            run, self._run = self._run, None
        if run is not None:  # started by bytes that came too late
            run.abandon(CancelledError(f"{printable(self.path)} has been imported already"))

    def stop(self) -> None:
        """Stop staging, and remove what was staged. Do not wait for that."""
        with self._lock:
            run, self._run = self._run, None
            self._changes += 1
        if run is not None:
            run.abandon(CancelledError("the upload has gone"))

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        with self._lock:
            was_open, self.is_open = self.is_open, False
        if was_open:
            os.close(self._descriptor)
            self.written.close()

    def _begin_early(self) -> None:
        if self._slots.early.acquire(blocking=False):
            self._run = self._new_run(self._slots.early)

    def _new_run(self, slot: threading.Semaphore, length: int | None = None) -> Run:
        """Start a run. `length`: of the file in bytes, if the file is whole."""
        try:
            run = Run(self._descriptor, self._stage, slot, self._slots.memory)
            if length is not None:
                run.arriving.finish(length)
            run.start()
        except BaseException:
            slot.release()
            raise
        return run

    def _changed(self, run: Run | None, follows: Callable[[UploadReader], bool]) -> int:
        """Record a change of the bytes, and return its number. The staged result is kept only if the run can follow."""
        with self._lock:
            self._refuse_if_imported()  # just taken: these bytes are in no model
            was_settled = self._settled_at == self._changes
            self._changes += 1
            change, current = self._changes, self._run
            if current is None or (current is run and not was_settled and follows(current.arriving)):
                return change
            self._run = None
        current.abandon(CancelledError(f"{printable(self.path)} was changed while it was staged"))
        return change

    def _may_be_mended(self, error: BaseException) -> bool:
        """Return True if later bytes may repair the damage: zip writers often put the sizes into the headers last."""
        return isinstance(error, DamagedArchiveError) and self._may_be_zip()

    def _may_be_zip(self) -> bool:
        return os.pread(self._descriptor, 2, 0) == b"PK"

    def _unwritten(self) -> DamagedArchiveError | None:
        """Return the error of an upload that has unwritten bytes, or None."""
        gap = self.written.gap()
        if gap is None:
            return None
        first, count = gap
        size = os.fstat(self._descriptor).st_size
        return UnwrittenBytesError(
            f"{count:,} of its {size:,} bytes never came, from byte {first:,} on: finish the upload, or copy it again, "
            "zeros included (cp --sparse=never)"
        )

    def _refuse_if_imported(self) -> None:
        if self.imported or self.taken is not None:
            raise CancelledError(f"{printable(self.path)} has been imported already: copy it anew to import it again")
