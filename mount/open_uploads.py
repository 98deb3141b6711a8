"""OpenUploads: the open files of `incoming/`: bytes that are written and read back, and what closing a file means.

Programs that write to one file at the same time are told so, since nobody knows whose bytes it has then.

Knows no FUSE. Threading: any thread; the spool's lock guards the handles, and is not held while bytes are written.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from dataclasses import dataclass

from mount.delivery import Delivery
from mount.nodes import Attributes
from mount.settling import Settling
from mount.spool import Spool, file_attributes
from mount.upload import Upload
from store.errors import CancelledError, NoSpaceError, NotFoundError, StoreError
from store.text import printable
from store.writing import sync_path

log = logging.getLogger(__name__)

_RESERVE = 16 << 20  # bytes that an upload leaves free


@dataclass
class _Handle:
    """One open file; of a name that was imported, without an upload until something is written."""

    path: str
    uid: int
    upload: Upload | None
    wrote: bool = False
    is_dirty: bool = False  # wrote since it was last closed by anybody
    last_change: int = -1  # the number of its last change to the upload
    is_mixed: bool = False  # somebody else wrote to the same file meanwhile


class OpenUploads:
    """The handles on one spool's files, by number."""

    def __init__(self, spool: Spool, delivery: Delivery, settling: Settling) -> None:
        self._spool = spool
        self._delivery = delivery
        self._settling = settling
        self._lock = spool.lock
        self._handles: dict[int, _Handle] = {}
        self._numbers = itertools.count(1)

    def create(self, path: str, mode: int, uid: int) -> int:
        """A handle on a new file that belongs to a user; of its mode, whether it may be executed is kept."""
        with self._lock:
            return self._handle(path, uid, self._spool.create(path, uid, mode))

    def open(self, path: str, flags: int, uid: int) -> int:
        """A handle on a file that is here; on a name that was imported, only to write anew."""
        with self._lock:
            upload = self._spool.find(path)
            if upload is None:
                self._spool.answer(path)
                if not flags & (os.O_WRONLY | os.O_RDWR):
                    raise NotFoundError(f"{printable(path)} has become a model: its bytes are in models/")
            number = self._handle(path, uid, upload)
        if flags & os.O_TRUNC:
            try:
                self._empty(number)
            except BaseException:
                self.release(number)
                raise
        return number

    def attributes(self, number: int) -> Attributes:
        """What `fstat` tells."""
        handle = self._handles[number]
        if handle.upload is None:
            return self._spool.answer(handle.path)
        return file_attributes(handle.upload.status(), handle.upload.uid)

    def read_into(self, number: int, view: memoryview, offset: int) -> int:
        """Read back what was written; fewer bytes than asked for only at the end."""
        handle = self._handles[number]
        if handle.upload is None:
            raise NotFoundError(f"{printable(handle.path)} has become a model: its bytes are in models/")
        return handle.upload.read_into(view, offset)

    def write(self, number: int, view: memoryview, offset: int) -> int:
        """Write all of the view.

        Raises:
            StoreError: it is known already that nothing can become of this upload, or there is no room.
        """
        upload = self._written(number)
        try:
            self._delivery.check_room(len(view) + upload.unread + _RESERVE)
            self._handles[number].last_change = upload.write(view, offset)
            upload.failure = None
            if upload.receipt is None and upload.is_archive and not upload.removed:
                self._delivery.begin(upload)
            return len(view)
        except OSError as error:
            upload.failure = error
            raise
        except StoreError as error:
            if isinstance(error, NoSpaceError):
                upload.failure = error
            if upload.taken is None:
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
                self._spool.answer(path)
            number = self._handle(path, uid, upload)
        try:
            if length:
                self.truncate(number, length)
            else:
                self._empty(number)
        finally:
            self.release(number)

    def flush(self, number: int) -> None:
        """A program closes a file: its outcome, unless it wrote nothing, or will rename what it wrote.

        Raises:
            StoreError: why this is no model of the store now.
            OSError: EBUSY, another program wrote to the same file at the same time.
        """
        handle = self._handles[number]
        if handle.upload is None or not handle.wrote:
            return
        with self._lock:
            handle.is_dirty = False
            if handle.is_mixed:
                log.info("%s was written by two programs at once: copy it again", printable(handle.path))
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._settling.settle(handle.upload)
        if handle.upload.imported and handle.upload.taken_at != handle.last_change:
            raise CancelledError(f"{printable(handle.path)} was changed by another program: copy it again")

    def sync(self, number: int) -> None:
        """Have what was written survive a loss of power."""
        upload = self._handles[number].upload
        if upload is None:
            return
        upload.sync()
        if not (upload.imported or upload.removed):
            sync_path(os.path.dirname(self._spool.at(upload.path)))

    def release(self, number: int) -> None:
        """Let go of an open file."""
        with self._lock:
            upload = self._handles.pop(number).upload
            if upload is not None:
                self._spool.let_go(upload)
        self._spool.end_gone()

    def is_being_written(self, upload: Upload) -> bool:
        """Whether a program has written to a file and not closed it yet; under the spool's lock."""
        return any(handle.is_dirty for handle in self._handles.values() if handle.upload is upload)

    def _handle(self, path: str, uid: int, upload: Upload | None) -> int:
        if upload is not None:
            upload.handles += 1
        number = next(self._numbers)
        self._handles[number] = _Handle(path, uid, upload)
        return number

    def _written(self, number: int) -> Upload:
        """The upload that a handle writes to."""
        handle = self._handles[number]
        with self._lock:
            if handle.upload is None:
                handle.upload = self._spool.find(handle.path) or self._spool.create(handle.path, handle.uid)
                handle.upload.handles += 1
            if handle.upload.handles > 1:
                for other in self._handles.values():
                    if other.upload is handle.upload and other is not handle and other.is_dirty:
                        handle.is_mixed = other.is_mixed = True
            handle.wrote = handle.is_dirty = True
            return handle.upload

    def _empty(self, number: int) -> None:
        """Begin a file anew. What another program has open, or what is being published, stays that: the name gets a new
        file."""
        handle = self._handles[number]
        with self._lock:
            upload = handle.upload
            if upload is not None and not upload.removed and (upload.taken or upload.handles > 1):
                self._spool.detach(upload)
                upload.handles -= 1
                handle.upload = None
        self._spool.end_gone()
        was_written, was_dirty = handle.wrote, handle.is_dirty
        self._written(number).truncate(0)
        handle.wrote, handle.is_dirty = was_written, was_dirty  # an empty file decides nothing
