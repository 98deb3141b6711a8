"""UploadHandles: the open files of `incoming/`. They write bytes and read them back. Closing one decides the upload.

Programs that write to one file at the same time get an error, because nobody knows whose bytes the file has then.

Knows no FUSE. Threading: any thread. The spool's lock guards the handles, and is not held while bytes are written.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os

from bentofs.mount.incoming.append_place import AppendPlace
from bentofs.mount.incoming.empty_uploads import EmptyUploads
from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.handle import Handle
from bentofs.mount.incoming.imported import ImportedNames
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.spool_names import SpoolNames
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.incoming.upload_facts import Became
from bentofs.mount.incoming.upload_state import UploadState
from bentofs.mount.view.nodes import Attributes
from bentofs.store.errors import CancelledError, InUseError, NoSpaceError, NotFoundError, StoreError
from bentofs.store.util.display import printable
from bentofs.store.util.fs import sync_path

log = logging.getLogger(__name__)

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # modes of fallocate(2)
_RESERVE = 16 << 20  # bytes that an upload leaves free
_BECAME = "{} has become a model: its bytes are in models/"
_MIXED = "two programs wrote to it at once, so its bytes may be mixed: copy it again"


class UploadHandles:
    """The handles on the files of one spool, by number."""

    def __init__(
        self, spool: Spool, finalizer: Finalizer, empty: EmptyUploads, imported: ImportedNames, reports: Reports
    ) -> None:
        self._spool = spool
        self._finalizer = finalizer
        self._empty_uploads = empty
        self._imported = imported
        self._read_back = imported.read_back
        self._reports = reports
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)
        self._turns = itertools.count(1)  # of writes

    def create(self, path: str, flags: int, mode: int, uid: int) -> int:
        """Create a file that belongs to a user, and return a handle on it. Of its mode, only the executable bit is
        kept."""
        with self._spool.locked() as names:
            return self._handle(names, path, flags, uid, self._new_file(names, path, uid, mode))

    def open(self, path: str, flags: int, uid: int) -> int:
        """Open a file that is here, and return a handle. A name that anybody imported can be opened to write it anew.
        For a moment, the user who imported it can also read it back."""
        with self._spool.locked() as names:
            upload = names.find(path)
            is_writing = flags & (os.O_WRONLY | os.O_RDWR)
            reads_back = self._imported.open(path, uid) if upload is None and not is_writing else None
            if upload is None and reads_back is None and not is_writing:
                raise NotFoundError(_BECAME.format(printable(path)))
            number = self._handle(names, path, flags, uid, upload)
            self._handles[number].reads_back = reads_back
        if flags & os.O_TRUNC:
            try:
                self._empty(number)
            except BaseException:
                self.release(number)
                raise
        return number

    def attributes(self, number: int) -> Attributes:
        """Return what `fstat` tells."""
        with self._spool.locked() as names:  # another thread may close the handle meanwhile
            handle = self._handles[number]
            upload = handle.upload
            if upload is not None:
                names.hold(upload)
        if upload is None:
            return self._imported.attributes(handle.path, handle.uid)
        try:
            return self._spool.attributes_of(handle.path, upload.file.status(), upload)
        finally:
            self._spool.let_go(upload)

    def size(self, number: int) -> int:
        """Return the number of bytes that are here, also of an undecided file, which `attributes` shows shorter."""
        upload = self._handles[number].upload
        return 0 if upload is None else upload.file.size

    def read_into(self, number: int, view: memoryview, offset: int) -> int:
        """Read back written bytes. It is fewer than asked for only at the end."""
        handle = self._handles[number]
        if handle.upload is not None:
            return handle.upload.file.read_into(view, offset)
        if handle.reads_back is None:
            raise NotFoundError(_BECAME.format(printable(handle.path)))
        return self._read_back.read_into(handle.reads_back, view, offset)

    def write(self, number: int, view: memoryview, offset: int) -> int:
        """Write all of the view.

        Raises:
            StoreError: it is already known that this upload cannot be imported, or there is no room.
        """
        handle = self._handles[number]
        upload = self._written(number)
        try:
            self._read_back.make_room(len(view) + upload.unread + _RESERVE)
            for piece, at in handle.pieces(upload, view, offset):
                offset = at
                handle.last_change = upload.write(piece, at)
            if not upload.receipt.is_running and upload.kind.is_archive and upload.lost is None:
                self._reports.begin(upload)
            return len(view)
        except OSError as error:
            upload.file.fail(error, offset)
            raise
        except StoreError as error:
            if isinstance(error, NoSpaceError):
                upload.file.fail(error, offset)
            # A note beside a model's file would be imported with it.
            if upload.state.takes_bytes and upload.kind.is_archive:
                self._reports.refuse(upload, upload.path, error)
            raise

    def truncate(self, number: int, length: int) -> None:
        """Set an open file's length."""
        upload = self._written(number, is_anew=length == 0)
        self._handles[number].last_change = upload.truncate(length)

    def truncate_path(self, path: str, length: int, uid: int) -> None:
        """Set a file's length by its name."""
        with self._spool.locked() as names:
            upload = names.find(path)
            if upload is None:
                self._imported.attributes(path, uid)
            number = self._handle(names, path, 0, uid, upload)
        try:
            if length:
                self.truncate(number, length)
            else:
                self._empty(number)
        finally:
            self.release(number)

    def allocate(self, number: int, offset: int, length: int, mode: int) -> None:
        """Do fallocate: make room, or declare a range to be zeros. Making room may make the file longer, but gives it
        no bytes.

        Raises:
            NoSpaceError: there is no room.
            OSError: this mode is not supported here.
        """
        if mode == _PUNCH_HOLE | _KEEP_SIZE:  # `cp --sparse=always` does so, and goes on behind the range
            self._written(number).skip(offset, length)
            return
        if mode & ~_KEEP_SIZE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._read_back.make_room(length + _RESERVE)
        upload = self._handles[number].upload
        size = self.attributes(number).size if upload is None else upload.file.size
        if not mode and offset + length > size:
            self.truncate(number, offset + length)

    def flush(self, number: int) -> None:
        """Decide the upload when a program closes a file, and report the outcome. Do nothing if the program wrote
        nothing. If the file will be renamed, the outcome comes then.

        Raises:
            StoreError: why it was not imported.
            InUseError: another program wrote to the same file at the same time.
        """
        handle = self._handles[number]
        upload = handle.upload
        if upload is None or not handle.wrote:
            return
        with self._spool.locked():
            handle.is_dirty = False
        if handle.mixed is not None:
            if upload.kind.is_archive:
                self._finalizer.refuse(upload, handle.mixed)
            raise handle.mixed
        try:
            self._finalizer.finalize(upload, check=lambda: self._check_alone(handle, upload))
        except CancelledError as error:
            if error is upload.lost and upload.kind.is_archive:
                self._say_lost(handle, upload, error)
            raise
        if upload.is_imported and not upload.includes(handle.last_change):
            late = CancelledError("another program's copy of it was imported: copy it again")
            self._reports.refuse_path(handle.path, handle.uid, late)
            raise late

    def became(self, number: int) -> Became | None:
        """Return the model that the file became by `flush`; None if it became none."""
        upload = self._handles[number].upload
        return upload.became if upload is not None and upload.is_imported else None

    def interrupt(self, number: int, error: StoreError) -> None:
        """Note that the program has gone before it wrote all. Report the error. The bytes are kept, and not decided."""
        handle = self._handles[number]
        if handle.upload is None or not handle.wrote:
            return
        with self._spool.locked():
            handle.is_dirty = False
        handle.upload.stop()
        if handle.upload.kind.is_archive:
            self._finalizer.refuse(handle.upload, error)

    def sync(self, number: int) -> None:
        """Sync the written bytes to disk."""
        upload = self._handles[number].upload
        if upload is None:
            return
        upload.file.sync()
        if not upload.is_imported and upload.lost is None:
            sync_path(os.path.dirname(self._spool.at(upload.path)))

    def release(self, number: int) -> None:
        """Release an open file."""
        with self._spool.locked() as names:
            handle = self._handles.pop(number)
            upload = handle.upload
            is_taken = upload is not None and handle.may_write and self._empty_uploads.take(names, upload)
        if handle.reads_back is not None:
            self._read_back.close(handle.reads_back)
        if upload is not None and not is_taken:
            self._spool.let_go(upload)

    def is_being_written(self, _names: SpoolNames, upload: Upload) -> bool:
        """Return True if a program has written to a file and not closed it yet."""
        return any(handle.is_dirty for handle in self._handles.values() if handle.upload is upload)

    def _handle(self, names: SpoolNames, path: str, flags: int, uid: int, upload: Upload | None) -> int:
        number = next(self._numbers)
        handle = self._handles[number] = Handle(path, uid, None, AppendPlace() if flags & os.O_APPEND else None)
        handle.may_write = bool(flags & (os.O_WRONLY | os.O_RDWR))
        if upload is not None:
            handle.attach(names, upload)
        return number

    def _new_file(self, names: SpoolNames, path: str, uid: int, mode: int = 0) -> Upload:
        upload = names.create(path, uid, mode)
        self._reports.notes.remove(path)
        return upload

    def _say_lost(self, handle: Handle, upload: Upload, error: CancelledError) -> None:
        """Report an upload that lost its name. A program that removed its file needs no note beside it. A program that
        lost it to another program does."""
        if upload.state is UploadState.REPLACED and not self._spool.is_on_its_way(handle.path):
            self._reports.notes.write(handle.path, error, handle.uid)
        else:
            log.info("%s was not imported: %s", printable(handle.path), error)

    def _written(self, number: int, *, is_anew: bool = False) -> Upload:
        """Return the upload that a handle writes to. `is_anew`: the file loses all bytes that it had.

        Two handles that write by turns mix their bytes, whether or not a copy of one of them was closed in between: a
        program and its child close the same file more than once.
        """
        handle = self._handles[number]
        with self._spool.locked() as names:
            upload = handle.upload
            if upload is None:
                upload = names.find(handle.path) or self._new_file(names, handle.path, handle.uid)
                handle.attach(names, upload)
            others = [
                other
                for other in (self._handles.values() if names.handles(upload) > 1 else ())
                if other.upload is upload and other is not handle and other.wrote
            ]
            mixes = handle.is_overtaken and not is_anew and upload.state.takes_bytes
            if mixes or any(other.is_dirty for other in others):
                mixing = [handle, *(other for other in others if mixes or other.is_dirty)]
                mixed = next((each.mixed for each in mixing if each.mixed), None) or InUseError(_MIXED)
                for each in mixing:
                    each.mixed = mixed
            handle.is_overtaken = False
            for other in others:
                other.is_overtaken = True
            handle.wrote = handle.is_dirty = True
            if upload.state.takes_bytes:
                handle.turn = next(self._turns)
            if not upload.mark.is_set:
                names.mark(upload)
            return upload

    def _check_alone(self, handle: Handle, upload: Upload) -> None:
        """Check that nobody wrote to the upload since this handle did: while it waited for its decision, for example.

        Raises:
            InUseError: another handle that is still open did.
        """
        with self._spool.locked():
            others = [other for other in self._handles.values() if other.upload is upload and other.turn > handle.turn]
            if others and handle.mixed is None:
                handle.mixed = InUseError(_MIXED)
                for other in others:
                    other.mixed = other.mixed or handle.mixed
        if handle.mixed is not None:
            raise handle.mixed

    def _empty(self, number: int) -> None:
        """Empty a file to begin it anew. If another program has it open, or it is being published, leave it, and give
        the name a new file."""
        handle = self._handles[number]
        with self._spool.locked() as names:
            upload = handle.upload
            has_name = upload is not None and upload.lost is None
            if upload is not None and has_name and (not upload.state.takes_bytes or names.handles(upload) > 1):
                names.detach(upload)
                names.let_go(upload)
                handle.upload = None
        was_written, was_dirty = handle.wrote, handle.is_dirty
        self._written(number, is_anew=True).truncate(0)
        handle.wrote, handle.is_dirty = was_written, was_dirty  # an empty file decides nothing
