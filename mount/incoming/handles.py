"""UploadHandles: the open files of `incoming/`. They write bytes and read them back. Closing one decides the upload.

Programs that write to one file at the same time get an error, because nobody knows whose bytes the file has then.

Knows no FUSE. Threading: any thread. The spool's lock guards the handles, and is not held while bytes are written.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from dataclasses import dataclass

from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.empty_uploads import EmptyUploads
from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.view.nodes import Attributes
from bentofs.store.errors import CancelledError, InUseError, NoSpaceError, NotFoundError, StoreError
from bentofs.store.util.display import printable
from bentofs.store.util.fs import sync_path

log = logging.getLogger(__name__)

_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # modes of fallocate(2)
_RESERVE = 16 << 20  # bytes that an upload leaves free
_BECAME = "{} has become a model: its bytes are in models/"
_MIXED = "two programs wrote to it at once, so its bytes may be mixed: copy it again"


@dataclass
class _Handle:
    """One open file. A handle on an imported name has no upload until something is written."""

    path: str
    uid: int
    upload: Upload | None
    appends: bool = False  # opened with O_APPEND
    may_write: bool = True
    reads_back: int | None = None  # receipt of the import under this name, if its bytes are still there
    wrote: bool = False
    is_dirty: bool = False  # has written since anybody last closed it
    last_change: int = -1  # the number of its last change to the upload
    mixed: InUseError | None = None  # somebody else wrote to the same file meanwhile

    def attach(self, upload: Upload) -> None:
        """Open an upload through this handle; under the spool's lock."""
        self.upload = upload
        upload.handles += 1


class UploadHandles:
    """The handles on the files of one spool, by number."""

    def __init__(self, spool: Spool, delivery: Delivery, finalizer: Finalizer) -> None:
        self._spool = spool
        self._delivery = delivery
        self._finalizer = finalizer
        self.empty = EmptyUploads(spool, delivery)
        self._lock = spool.lock
        self._handles: dict[int, _Handle] = {}
        self._numbers = itertools.count(1)

    def create(self, path: str, flags: int, mode: int, uid: int) -> int:
        """Create a file that belongs to a user, and return a handle on it. Of its mode, only the executable bit is
        kept."""
        with self._lock:
            return self._handle(path, flags, uid, self._spool.create(path, uid, mode))

    def open(self, path: str, flags: int, uid: int) -> int:
        """Open a file that is here, and return a handle. A name that anybody imported can be opened to write it anew.
        For a moment, the user who imported it can also read it back."""
        with self._lock:
            upload = self._spool.find(path)
            is_writing = flags & (os.O_WRONLY | os.O_RDWR)
            reads_back = self._delivery.open_imported(path, uid) if upload is None and not is_writing else None
            if upload is None and reads_back is None and not is_writing:
                raise NotFoundError(_BECAME.format(printable(path)))
            number = self._handle(path, flags, uid, upload)
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
        handle = self._handles[number]
        if handle.upload is None:
            return self._spool.answer(handle.path, handle.uid)
        return self._spool.file_attributes(handle.path, handle.upload.status(), handle.upload)

    def read_into(self, number: int, view: memoryview, offset: int) -> int:
        """Read back written bytes. It is fewer than asked for only at the end."""
        handle = self._handles[number]
        if handle.upload is not None:
            return handle.upload.read_into(view, offset)
        if handle.reads_back is None:
            raise NotFoundError(_BECAME.format(printable(handle.path)))
        return self._delivery.read_back.read_into(handle.reads_back, view, offset)

    def write(self, number: int, view: memoryview, offset: int) -> int:
        """Write all of the view.

        Raises:
            StoreError: it is already known that this upload cannot be imported, or there is no room.
        """
        handle = self._handles[number]
        goes_on = handle.wrote
        upload = self._written(number)
        try:
            self._delivery.check_room(len(view) + upload.unread + _RESERVE)
            if handle.appends:
                offset = upload.append_offset(view, offset, goes_on=goes_on)
            handle.last_change = upload.write(view, offset)
            if upload.receipt is None and upload.is_archive and upload.gone is None:
                self._delivery.begin(upload)
            return len(view)
        except OSError as error:
            upload.fail(error, offset)
            raise
        except StoreError as error:
            if isinstance(error, NoSpaceError):
                upload.fail(error, offset)
            if upload.taken is None and upload.is_archive:  # a note beside a model's file would be imported with it
                self._delivery.refuse(upload, upload.path, error)
            raise

    def truncate(self, number: int, length: int) -> None:
        """Set an open file's length."""
        upload = self._written(number)
        self._handles[number].last_change = upload.truncate(length)

    def truncate_path(self, path: str, length: int, uid: int) -> None:
        """Set a file's length by its name."""
        with self._lock:
            upload = self._spool.find(path)
            if upload is None:
                self._spool.answer(path, uid)
            number = self._handle(path, 0, uid, upload)
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
        self._delivery.check_room(length + _RESERVE)
        upload = self._handles[number].upload
        size = self.attributes(number).size if upload is None else upload.status().st_size
        if not mode and offset + length > size:
            self.truncate(number, offset + length)

    def flush(self, number: int) -> None:
        """Settle the upload when a program closes a file, and report the outcome. Do nothing if the program wrote
        nothing. If the file will be renamed, the outcome comes then.

        Raises:
            StoreError: why it was not imported.
            InUseError: another program wrote to the same file at the same time.
        """
        handle = self._handles[number]
        upload = handle.upload
        if upload is None or not handle.wrote:
            return
        with self._lock:
            handle.is_dirty = False
        if handle.mixed is not None:
            if upload.is_archive:
                upload.mark_refused()
                self._delivery.refuse(upload, upload.path, handle.mixed)
            raise handle.mixed
        try:
            self._finalizer.settle(upload)
        except CancelledError as error:
            if error is upload.gone and upload.is_archive:
                self._say_gone(handle, upload, error)
            raise
        if upload.imported and upload.taken_at != handle.last_change:
            late = CancelledError("another program's copy of it was imported: copy it again")
            self._delivery.refuse_path(handle.path, handle.uid, late)
            raise late

    def sync(self, number: int) -> None:
        """Sync the written bytes to disk."""
        upload = self._handles[number].upload
        if upload is None:
            return
        upload.sync()
        if not upload.imported and upload.gone is None:
            sync_path(os.path.dirname(self._spool.at(upload.path)))

    def release(self, number: int) -> None:
        """Release an open file."""
        with self._lock:
            handle = self._handles.pop(number)
            upload = handle.upload
            is_taken = upload is not None and handle.may_write and self.empty.take(upload)
        if handle.reads_back is not None:
            self._delivery.read_back.close(handle.reads_back)
        if upload is None or is_taken:
            return
        with self._lock:
            self._spool.let_go(upload)
        self._spool.end_gone()

    def is_being_written(self, upload: Upload) -> bool:
        """Return True if a program has written to a file and not closed it yet; under the spool's lock."""
        return any(handle.is_dirty for handle in self._handles.values() if handle.upload is upload)

    def _handle(self, path: str, flags: int, uid: int, upload: Upload | None) -> int:
        number = next(self._numbers)
        handle = self._handles[number] = _Handle(path, uid, None, bool(flags & os.O_APPEND))
        handle.may_write = bool(flags & (os.O_WRONLY | os.O_RDWR))
        if upload is not None:
            handle.attach(upload)
        return number

    def _say_gone(self, handle: _Handle, upload: Upload, error: CancelledError) -> None:
        """Report an upload that lost its name. A program that removed its file needs no note beside it. A program that
        lost it to another program does."""
        if upload.is_replaced and not self._spool.is_on_its_way(handle.path):
            self._delivery.say_why(handle.path, error, handle.uid)
        else:
            log.info("%s was not imported: %s", printable(handle.path), error)

    def _written(self, number: int) -> Upload:
        """Return the upload that a handle writes to."""
        handle = self._handles[number]
        with self._lock:
            upload = handle.upload
            if upload is None:
                upload = self._spool.find(handle.path) or self._spool.create(handle.path, handle.uid)
                handle.attach(upload)
            if upload.handles > 1:
                for other in self._handles.values():
                    if other.upload is upload and other is not handle and other.is_dirty:
                        mixed = handle.mixed or other.mixed or InUseError(_MIXED)
                        handle.mixed = other.mixed = mixed
            handle.wrote = handle.is_dirty = upload.may_replace = True
            if not upload.is_undecided:
                self._spool.mark(upload)
            return upload

    def _empty(self, number: int) -> None:
        """Empty a file to begin it anew. If another program has it open, or it is being published, leave it, and give
        the name a new file."""
        handle = self._handles[number]
        with self._lock:
            upload = handle.upload
            if upload is not None and upload.gone is None and (upload.taken or upload.handles > 1):
                self._spool.detach(upload)
                upload.handles -= 1
                handle.upload = None
        self._spool.end_gone()
        was_written, was_dirty = handle.wrote, handle.is_dirty
        self._written(number).truncate(0)
        handle.wrote, handle.is_dirty = was_written, was_dirty  # an empty file decides nothing
