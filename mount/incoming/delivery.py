"""Delivery: makes a whole upload a model of the store, or refuses it with a reason.

Keeps the record of imports (`store.transfer.import_log`) and the notes beside refused uploads.
Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable
from contextlib import suppress

from bentofs.mount.errors import errno_of
from bentofs.mount.incoming.checksums import Checksums
from bentofs.mount.incoming.names import ERROR_SUFFIX, final_path
from bentofs.mount.incoming.ownership import Ownership
from bentofs.mount.incoming.read_back import ReadBack, free_room
from bentofs.mount.incoming.upload import Upload
from bentofs.store.errors import CancelledError, DamagedArchiveError, NoSpaceError, StoreError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Outcome
from bentofs.store.staging.session import Session
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import Importer, StagedImport
from bentofs.store.transfer.receipt import ReceiptState, request_id
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_STATES = {
    Outcome.IMPORTED: ReceiptState.IMPORTED,
    Outcome.UNCHANGED: ReceiptState.UNCHANGED,
    Outcome.REPLACED: ReceiptState.REPLACED,
}


class Delivery:
    """The imports of one `incoming/`."""

    def __init__(
        self,
        session: Session,
        importer: Importer,
        receipts: ImportLog,
        sums: Checksums,
        imported: Callable[[StagedImport], None],
        owners: Ownership,
    ) -> None:
        """`imported`: called with each model that is new in the store."""
        self.owners = owners
        self._imported = imported
        self._ends = False
        self._session = session
        self._importer = importer
        self._receipts = receipts
        self._sums = sums
        self.read_back = ReadBack(session.spool)

    def stage(self, arriving: ArrivingFile, on_model: Callable[[], None]) -> StagedImport:
        """Do what `Importer.stage` does."""
        return self._importer.stage(arriving, digest_later=True, on_model=on_model)

    def check_room(self, wanted: int) -> None:
        """Raise NoSpaceError if there is no room for so many bytes, the staged ones counted."""
        if free_room(self._session.spool) >= wanted:
            return
        self.read_back.drop()
        if free_room(self._session.spool) < wanted:
            raise NoSpaceError("there is no room left in the store's file system for the upload and the model in it")

    def begin(self, upload: Upload) -> None:
        """Record that the first bytes of an upload come. The note of an earlier upload of its name is no longer true.
        Its own refusal is withdrawn, too, if its program goes on: a child process that closed the file only seemed to
        end the upload."""
        self.remove_note(upload.path)
        if upload.refused_as and self._receipts.resume(upload.refused_as):
            upload.receipt, upload.refused_as = upload.refused_as, None
            return
        upload.receipt = self._receipts.begin(self._session.name, final_path(upload.path), upload.uid)

    def report(self, upload: Upload) -> None:
        """Record how far an upload has come."""
        if upload.receipt is not None:
            with suppress(OSError):  # just closed
                self._receipts.progress(upload.receipt, upload.status().st_size)

    def report_whole(self, upload: Upload, *, is_final: bool) -> None:
        """Record that an upload is whole. If its name is final, also record its path: if this process dies before the
        upload is decided, the next mount decides it (`mount.incoming.recovery`)."""
        if upload.receipt is not None:
            size, path = upload.status().st_size, upload.path
            if is_final:
                self._receipts.importing(upload.receipt, size, path=path, size=size)
            else:
                self._receipts.importing(upload.receipt, size)

    def end(self) -> None:
        """End all deliveries, because the mount ends. An upload that fails because of this is not refused. It stays in
        the record as whole, for the next mount."""
        self._ends = True

    def deliver(self, upload: Upload, path: str, ready: StagedImport) -> None:
        """Make an upload a model of the store; `path`: the name under which it was copied in.

        Raises:
            StoreError: why it was not imported. The staged model is discarded.
        """
        try:
            self._sums.check(path, ready, upload.uid)
            move_latest = self._may_move_latest(upload.uid, ready.tag)
            outcome = self._importer.publish(ready, move_latest=move_latest, may_replace=upload.may_replace)
        except BaseException as error:
            ready.discard()
            if isinstance(error, StoreError):
                upload.refuse(error)
                self.refuse(upload, path, error)
            raise
        receipt = self._finish(upload, path, _STATES[outcome], ready)
        upload.mark_imported()
        self.remove_note(path)
        self._imported(ready)
        self._log_outcome(path, outcome, ready, receipt)

    def prepare(self, ready: StagedImport) -> None:
        """Do what `Importer.compare` does."""
        self._importer.compare(ready)

    def take_folder(self, path: str) -> str:
        """Take a directory out of the spool, to stage it in its new place. Return that place, which has no name in
        `incoming/`."""
        inode = os.lstat(self._at(path)).st_ino
        taken = os.path.join(self._session.new_importing_folder(inode), path)
        os.makedirs(os.path.dirname(taken), 0o700, exist_ok=True)
        os.rename(self._at(path), taken)
        return taken

    def deliver_folder(self, path: str, taken: str, uid: int) -> None:
        """Make a taken directory a model of the store, or put it back.

        Raises:
            StoreError: why it was not imported.
        """
        try:
            ready = self._importer.stage_folder(taken)
            outcome = self._importer.publish(ready, move_latest=self._may_move_latest(uid, ready.tag))
        except BaseException as error:
            if os.path.lexists(taken):
                self._put_back(taken, path, uid)
            if isinstance(error, StoreError):
                self.refuse_path(path, uid, error)
            raise
        receipt = self._receipts.begin(self._session.name, path, uid)
        info = ready.staged.info
        _remove_around(taken, path)
        self._receipts.finish(
            receipt,
            _STATES[outcome],
            tag=str(info.tag),
            creation_time=info.creation_time.isoformat(),
            note=ready.staged.left_out,
        )
        self.remove_note(path)
        self._imported(ready)
        self._log_outcome(path, outcome, ready, receipt)

    def refuse_path(self, path: str, uid: int, error: StoreError) -> None:
        """Report in the note, the log and the record why a path was not imported: a directory, or bytes that came after
        their upload had become a model."""
        receipt = self._receipts.begin(self._session.name, path, uid)
        self.say_why(path, error, uid, receipt)
        self._receipts.finish(receipt, ReceiptState.REFUSED, error=str(error), errno=_errno_name(error))

    def refuse(self, upload: Upload, path: str, error: StoreError) -> None:
        """Report in the note, the log and the record why an upload was not imported. The same error is reported only
        once."""
        if upload.refusal is error or (self._ends and isinstance(error, CancelledError)):
            return
        upload.refusal = error
        if upload.receipt is None:
            self.begin(upload)
        self.say_why(final_path(path), error, upload.uid, upload.receipt)
        if upload.receipt is not None:
            size = upload.status().st_size
            self._receipts.finish(
                upload.receipt,
                ReceiptState.REFUSED,
                path=final_path(path),
                size=size,
                error=str(error),
                errno=_errno_name(error),
            )
        upload.refused_as, upload.receipt = upload.receipt, None

    def withdraw(self, upload: Upload) -> None:
        """Record that an upload is not to be imported any more."""
        if upload.receipt is not None and not upload.imported and not self._ends:
            why = str(upload.gone or "it was not finished, or is a file of a directory")
            self._receipts.finish(upload.receipt, ReceiptState.INTERRUPTED, error=why)
            upload.receipt = None

    def check_note(self, path: str, uid: int, place: str) -> None:
        """Compare a copied file of checksums with earlier imports. `place`: where it lies, if `path` is the name that
        it is about to get.

        Raises:
            DamagedArchiveError: an imported file has another sum.
        """
        self.remove_note(path)
        try:
            self._sums.check_imported(path, uid, place)
        except DamagedArchiveError as error:
            self.say_why(path, error, uid)
            raise

    def answer(self, path: str, uid: int) -> tuple[int, int, int] | None:
        """Return size, mtime (ns) and receipt of a user's upload that was imported under this path, while its model
        exists."""
        receipt = self._receipts.answer(path, uid)
        if receipt is None or receipt.tag is None or receipt.size is None or receipt.mtime_ns is None:
            return None
        if not self._importer.still_has(Tag.parse(receipt.tag), receipt.creation_time):
            return None
        return receipt.size, receipt.mtime_ns, receipt.id

    def open_imported(self, path: str, uid: int) -> int | None:
        """Begin to read back a user's import under this path. Return its receipt, or None if its bytes are gone."""
        answer = self.answer(path, uid)
        return answer[2] if answer is not None and self.read_back.open(answer[2]) else None

    def rename(self, old: str, new: str, uid: int) -> None:
        """Give a user's import another name."""
        receipt = self._receipts.answer(old, uid)
        if receipt is not None:
            self._receipts.finish(receipt.id, receipt.state, path=new)

    def forget(self, path: str, uid: int) -> None:
        """Forget a user's import under this path: `answer` returns it no more."""
        self._receipts.forget(path, uid)

    def set_mtime(self, path: str, uid: int, mtime_ns: int) -> None:
        """Set the mtime that `stat` tells a user for the import under this path."""
        self._receipts.set_mtime(path, uid, mtime_ns)

    def remove_note(self, path: str) -> None:
        """Remove the note that says why the last upload of this name was refused."""
        with suppress(OSError):
            os.unlink(self._at(final_path(path) + ERROR_SUFFIX))

    def _put_back(self, taken: str, path: str, uid: int) -> None:
        if uid != self.owners.user == 0:  # staging made root the owner
            for folder, _, files in os.walk(taken):
                for name in ("", *files):
                    os.chown(os.path.join(folder, name), uid, -1, follow_symlinks=False)
        free = path
        for number in itertools.count(2):
            if not os.path.lexists(self._at(free)):
                break
            free = f"{path}-{number}"
        os.makedirs(os.path.dirname(self._at(free)), exist_ok=True)
        os.rename(taken, self._at(free))
        _remove_around(taken, path)

    def _finish(self, upload: Upload, path: str, state: ReceiptState, ready: StagedImport) -> int:
        """Record a success. Return its receipt."""
        look = upload.taken or upload.status()
        receipt, upload.receipt = upload.receipt, None
        if not receipt:
            receipt = self._receipts.begin(self._session.name, path, upload.uid)
        upload.imported_as = receipt
        if ready.digest is not None:
            self._sums.await_digest(receipt, ready.digest)
        info = ready.staged.info
        self._receipts.finish(
            receipt,
            state,
            path=path,
            size=look.st_size,
            mtime_ns=look.st_mtime_ns,
            tag=str(info.tag),
            creation_time=info.creation_time.isoformat(),
            note=ready.staged.left_out,
        )
        return receipt

    def _may_move_latest(self, uid: int, tag: Tag) -> bool:
        """Return True if a user's upload may move `latest`. It may not if others brought in models of that name."""
        return uid == self.owners.user or not self._importer.has_name(tag.name)

    def say_why(self, path: str, error: StoreError, uid: int, receipt: int | None = None) -> None:
        """Report in the log, and in a note beside it, why a user's file or directory was not imported. `receipt`: its
        import in the record, if it has one."""
        request = "" if receipt is None else f" (request {request_id(self._session.name, receipt)})"
        log.warning("%s was not imported: %s%s", printable(path), error, request)
        try:
            descriptor = os.open(
                self._at(path + ERROR_SUFFIX), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
            )
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as note:
                self.owners.give(descriptor, uid)
                note.write(f"{printable(path)} was not imported: {error}{request}\n")
        except OSError as failed:
            log.warning("no note of it could be left: %s", failed)

    def _log_outcome(self, path: str, outcome: Outcome, ready: StagedImport, receipt: int) -> None:
        left_out = f"; {ready.staged.left_out}" if ready.staged.left_out else ""
        request = request_id(self._session.name, receipt)
        log.info("%s: %s %s%s (request %s)", printable(path), ready.tag, outcome.value, left_out, request)

    def _at(self, path: str) -> str:
        return f"{self._session.spool}/{path}"


def _remove_around(taken: str, path: str) -> None:
    """Remove the parent directories of a directory that was taken from a path."""
    for _ in path.split("/"):
        taken = os.path.dirname(taken)
        with suppress(OSError):  # they are empty, and are removed when the mount ends
            os.rmdir(taken)


def _errno_name(error: StoreError) -> str | None:
    return errno.errorcode.get(errno_of(error, "import"))
