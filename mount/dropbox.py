"""DropBox: `incoming/`. What is copied in lies in the spool, a folder of the same shape, until it is a model.

The outcome of an import is the outcome of the operation that ends the upload: flush for most programs, rename for those
that write under another name first, fsync of the folder for a model that comes as a folder. Names that were imported
are no longer listed, but `stat` answers for them while their models exist, so that rsync sends nothing twice.

Paths are relative to `incoming/`, which itself is the empty path. Knows no FUSE. Threading: any thread; the lock guards
names and handles, and is never held while bytes are written, staged or published.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from cachetools import LRUCache

from mount.delivery import Delivery
from mount.dropnames import is_note, is_on_its_way, is_rsyncs, may_be_archive, must_be_archive
from mount.nodes import Attributes, Item, inode_of
from mount.tree import INCOMING
from mount.upload import Slots, Upload
from store.errors import CancelledError, NoSpaceError, NotAModelError, NotFoundError, StoreError
from store.model import MODEL_YAML
from store.text import printable
from store.writing import sync_path

log = logging.getLogger(__name__)


_IMPORTED_KEPT = 10_000
_LARGE = 256 << 20  # bytes of a removed file whose last close takes a noticeable time
_RESERVE = 16 << 20  # bytes that an upload leaves free
_FILE_MODE, _FOLDER_MODE = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


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


class DropBox:
    """One mount's `incoming/`."""

    def __init__(self, spool: str, delivery: Delivery, mode: int = 0o755) -> None:
        """`spool`: a folder of ours alone; `mode`: the permissions of `incoming/`."""
        self._spool = spool
        self._delivery = delivery
        self._mode = stat.S_IFDIR | mode
        self._lock = threading.RLock()
        self._uploads: dict[int, Upload] = {}  # by the inode of the spooled file
        self._folder_owners: dict[int, int] = {}
        self._handles: dict[int, _Handle] = {}
        self._numbers = itertools.count(1)
        self._imported_below: LRUCache[str, bool] = LRUCache(_IMPORTED_KEPT)  # archives that lay in folders
        self._gone: deque[Upload] = deque()  # forgotten, to be ended outside of the lock
        self._slots = Slots()
        self._user = os.geteuid()

    # Looking.

    def attributes(self, path: str) -> Attributes:
        """What `stat` tells.

        Raises:
            NotFoundError: nothing of that name is here, nor was imported.
        """
        try:
            look = os.lstat(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            return self._answer(path)
        if not path:
            return Attributes(
                self._mode, inode_of(f"/{INCOMING}"), look.st_nlink, 0, look.st_mtime_ns, look.st_ctime_ns
            )
        if stat.S_ISDIR(look.st_mode):
            uid = self._folder_owners.get(look.st_ino, look.st_uid)
            return Attributes(_FOLDER_MODE, look.st_ino, look.st_nlink, 0, look.st_mtime_ns, look.st_ctime_ns, uid)
        upload = self._uploads.get(look.st_ino)
        return _file_attributes(look, upload.uid if upload else look.st_uid)

    def items(self, path: str) -> list[Item]:
        """What lies in a folder."""
        items = []
        with os.scandir(self._at(path)) as found:
            for entry in found:
                kind = stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG
                items.append(Item(entry.name, kind, entry.inode()))
        return items

    def check_folder(self, path: str) -> None:
        """Raises NotFoundError, NotADirectoryError: no folder is there."""
        if not stat.S_ISDIR(self.attributes(path).mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    # Open files.

    def create(self, path: str, mode: int, uid: int) -> int:
        """A handle on a new file that belongs to a user; of its mode, whether it may be executed is kept."""
        with self._lock:
            return self._handle(path, uid, self._create(path, uid, mode))

    def open(self, path: str, flags: int, uid: int) -> int:
        """A handle on a file that is here; on a name that was imported, only to write anew."""
        with self._lock:
            upload = self._find(path)
            if upload is None:
                self._answer(path)
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

    def attributes_of(self, number: int) -> Attributes:
        """What `fstat` tells."""
        handle = self._handles[number]
        if handle.upload is None:
            return self._answer(handle.path)
        return _file_attributes(handle.upload.status(), handle.upload.uid)

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

    def truncate(self, path: str, length: int, uid: int) -> None:
        """Set a file's length by its name."""
        with self._lock:
            upload = self._find(path)
            if upload is None:
                self._answer(path)
            number = self._handle(path, uid, upload)
        try:
            if length:
                self.truncate_open(number, length)
            else:
                self._empty(number)
        finally:
            self.release(number)

    def truncate_open(self, number: int, length: int) -> None:
        """Set an open file's length."""
        upload = self._written(number)
        self._handles[number].last_change = upload.truncate(length)

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
        self._settle(handle.upload)
        if handle.upload.imported and handle.upload.taken_at != handle.last_change:
            raise CancelledError(f"{printable(handle.path)} was changed by another program: copy it again")

    def sync(self, number: int) -> None:
        """Have what was written survive a loss of power."""
        upload = self._handles[number].upload
        if upload is None:
            return
        upload.sync()
        if not (upload.imported or upload.removed):
            sync_path(os.path.dirname(self._at(upload.path)))

    def release(self, number: int) -> None:
        """Let go of an open file."""
        with self._lock:
            upload = self._handles.pop(number).upload
            if upload is not None:
                upload.handles -= 1
                self._let_go(upload)
        self._end_gone()

    # Names.

    def rename(self, old: str, new: str) -> None:
        """Rename; a file that gets its final name by this is imported.

        Raises:
            StoreError: why this is no model of the store now. It keeps its old name, unless that is one of rsync's:
                rsync removes what it cannot rename, and the bytes are to be resumed.
        """
        with self._lock:
            upload = self._find(old)
            if upload is None:
                self._rename_other(old, new)
                return
            is_written = self._is_being_written(upload)
            number = self._handle(old, upload.uid, upload)
        try:
            moves_anyway = is_rsyncs(old) or is_on_its_way(new) or (is_written and not upload.is_settled)
            if moves_anyway:
                self._move(upload, old, new)
                # While it is still being written, what decides is the end of that.
                if upload.is_settled or not is_written:
                    self._settle(upload)
            else:
                try:
                    self._settle(upload, new)
                finally:
                    self._judge(upload, old)
                if not upload.imported:
                    self._move(upload, old, new)
        finally:
            self.release(number)

    def unlink(self, path: str) -> None:
        """Remove a file; what was imported from it stays in the store."""
        with self._lock:
            upload = self._find(path)
            if upload is None:
                self._answer(path)
                self._delivery.forget(path)
                return
            os.unlink(self._at(path))
            self._forget(upload)
        self._end_gone()
        if not is_note(path):
            self._delivery.remove_note(path)

    def make_folder(self, path: str, uid: int) -> None:
        """mkdir."""
        os.mkdir(self._at(path), 0o700)
        with self._lock:
            if uid != self._user:
                self._folder_owners[os.lstat(self._at(path)).st_ino] = uid
                if self._user == 0:
                    os.chown(self._at(path), uid, -1)

    def remove_folder(self, path: str) -> None:
        """rmdir."""
        if not path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        with self._lock:
            inode = os.lstat(self._at(path)).st_ino
            os.rmdir(self._at(path))
            self._folder_owners.pop(inode, None)
            for alone in [known for known in self._imported_below if known.startswith(f"{path}/")]:
                del self._imported_below[alone]

    def set_mode(self, path: str, mode: int) -> None:
        """chmod: whether a file may be executed is kept; all else is as the model will have it."""
        try:
            look = os.lstat(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            self._answer(path)
            return
        if stat.S_ISREG(look.st_mode):
            os.chmod(self._at(path), 0o600 | mode & stat.S_IXUSR)

    def set_times(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        """utimens; None leaves a time as it is."""
        try:
            look = os.lstat(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            self._answer(path)
            if mtime_ns is not None:
                self._delivery.set_mtime(path, mtime_ns)
            return
        times = (look.st_atime_ns if atime_ns is None else atime_ns, look.st_mtime_ns if mtime_ns is None else mtime_ns)
        os.utime(self._at(path), ns=times)

    def sync_folder(self, path: str, uid: int) -> None:
        """A program wants a folder to be safe: models that came as folders, at or below it, are imported, as far as
        they are its user's (or root asks). Not with `incoming/` itself: programs sync the folder above what they have
        renamed.

        Raises:
            StoreError: of the first that could not be.
        """
        sync_path(self._at(path))
        failed: StoreError | OSError | None = None
        for folder in list(self.model_folders(path)) if path else ():
            try:
                if uid not in (0, self._user, self.attributes(folder).uid):
                    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
                self.import_folder(folder)
            except (StoreError, OSError) as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def model_folders(self, path: str) -> Iterator[str]:
        """The folders at or below a path, except `incoming/` itself, that hold a `model.yaml`."""
        for folder, folders, files in os.walk(self._at(path)):
            below = os.path.relpath(folder, self._spool)
            if below != "." and MODEL_YAML in files:
                yield below
                folders.clear()
            else:
                folders[:] = [name for name in folders if not name.startswith(".")]

    def import_folder(self, path: str) -> None:
        """Make a folder that was copied in a model.

        Raises:
            StoreError: why it is none; the folder is as before.
            OSError: EBUSY, something in it is still being written.
        """
        with self._lock:
            look = os.lstat(self._at(path))
            uid = self._folder_owners.get(look.st_ino, look.st_uid)
            uploads = list(self._below(path))
            if any(upload.handles for upload in uploads):
                log.info("%s is not imported: a file in it is still being written", printable(path))
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            alone = next((known for known in self._imported_below if known.startswith(f"{path}/")), None)
            if alone is not None:
                error = NotAModelError(
                    f"{printable(alone)} came before the model.yaml and was imported as a model of its own, so this is "
                    "not whole: remove it and copy it again, model.yaml first, or as an archive"
                )
                self._delivery.refuse_folder(path, uid, error)
                raise error
            for upload in uploads:
                self._forget(upload)
            taken = self._delivery.take_folder(path)
        self._end_gone()
        self._delivery.deliver_folder(path, taken, uid)

    def newest_change(self, path: str) -> int:
        """When anything at or below a folder changed last (ns, wall clock)."""
        newest = 0
        for folder, _, files in os.walk(self._at(path)):
            for name in ("", *files):
                with suppress(FileNotFoundError):
                    newest = max(newest, os.lstat(os.path.join(folder, name)).st_ctime_ns)
        return newest

    def busy_below(self, path: str) -> bool:
        """Whether a file below a folder is open."""
        with self._lock:
            return any(upload.handles for upload in self._below(path))

    def running(self) -> list[Upload]:
        """The uploads that have begun and are not decided."""
        with self._lock:
            return [upload for upload in self._uploads.values() if upload.receipt is not None]

    def close(self) -> None:
        """Stop all that goes on; what was spooled stays."""
        with self._lock:
            uploads = list(self._uploads.values())
            self._uploads.clear()
        for upload in uploads:
            upload.stop()

    def _settle(self, upload: Upload, path: str | None = None) -> None:
        """Import a complete upload, or say why not; `path`: the name that it has, or is about to get."""
        with upload.deciding:
            if upload.removed:
                raise CancelledError(f"{printable(upload.path)} was removed before it was imported")
            if not upload.imported:
                self._decide(upload, path or upload.path)

    def _decide(self, upload: Upload, path: str) -> None:
        if is_note(path):
            self._delivery.check_note(path, upload.uid)
            return
        self._judge(upload, path)  # a model.yaml may have come beside it
        if not upload.is_archive:
            return
        self._delivery.report(upload, is_whole=True)
        try:
            if upload.failure is not None:
                raise upload.failure
            prepared = upload.settle()
            if is_on_its_way(path):
                self._delivery.prepare(prepared)  # a slow rename would hold up all of incoming/
                return
            ready = upload.take()
        except StoreError as error:
            if is_on_its_way(path):
                return  # said when it gets its final name
            if upload.is_strict:
                self._delivery.refuse(upload, path, error)
                raise
            log.info("%s stays as a file of its folder: %s", printable(path), error)
            self._delivery.withdraw(upload)
            return
        self._delivery.deliver(upload, path, ready)
        with self._lock:
            self._uploads.pop(upload.inode, None)
            self._unlink(upload)
            replaced = self._find(path) if path != upload.path else None
            if replaced is not None:
                os.unlink(self._at(path))
                self._forget(replaced)
            if "/" in path:
                self._imported_below[path] = True

    def _judge(self, upload: Upload, path: str) -> None:
        """Decide what an upload is by where it lies: in a folder that is a model, it is a file of that."""
        folders = path.split("/")[:-1]
        in_model = any(
            os.path.lexists(self._at("/".join([*folders[: depth + 1], MODEL_YAML]))) for depth in range(len(folders))
        )
        upload.is_archive = may_be_archive(path) and not in_model
        upload.is_strict = must_be_archive(path) and not in_model
        # rsync learns it from the rename, and goes on with its next file; a write that fails would end it.
        upload.fails_early = upload.is_strict and not is_on_its_way(path)

    def _unlink(self, upload: Upload) -> None:
        """Remove the spooled file of an upload, if it still lies there."""
        with suppress(FileNotFoundError):
            if os.lstat(self._at(upload.path)).st_ino == upload.inode:
                os.unlink(self._at(upload.path))

    def _move(self, upload: Upload, old: str, new: str) -> None:
        with self._lock:
            replaced = self._find(new)
            os.rename(self._at(old), self._at(new))
            if replaced is not None and replaced is not upload:
                self._forget(replaced)
            upload.path = new
            self._judge(upload, new)

    def _rename_other(self, old: str, new: str) -> None:
        """Rename a folder, or a name that was imported."""
        if not os.path.lexists(self._at(old)):
            self._answer(old)
            replaced = self._find(new)
            if replaced is not None:
                os.unlink(self._at(new))
                self._forget(replaced)
            self._delivery.rename(old, new)
            return
        if is_on_its_way(old) and not is_on_its_way(new) and self._holds_archives(old, new):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))  # mv copies: each is imported, with its own outcome
        os.rename(self._at(old), self._at(new))
        for upload in self._below(old):
            upload.path = new + upload.path[len(old) :]

    def _holds_archives(self, path: str, new: str) -> bool:
        """Whether a folder holds files that would be imported if it had the other path."""
        for folder, folders, files in os.walk(self._at(path)):
            if MODEL_YAML in files:
                folders.clear()
                continue
            below = new + folder[len(self._at(path)) :]
            if any(may_be_archive(f"{below}/{name}") and not is_on_its_way(f"{below}/{name}") for name in files):
                return True
        return False

    def _written(self, number: int) -> Upload:
        """The upload that a handle writes to."""
        handle = self._handles[number]
        with self._lock:
            if handle.upload is None:
                handle.upload = self._find(handle.path) or self._create(handle.path, handle.uid)
                handle.upload.handles += 1
            if handle.upload.handles > 1:
                for other in self._handles.values():
                    if other.upload is handle.upload and other is not handle and other.is_dirty:
                        handle.is_mixed = other.is_mixed = True
            handle.wrote = handle.is_dirty = True
            return handle.upload

    def _is_being_written(self, upload: Upload) -> bool:
        return any(handle.is_dirty for handle in self._handles.values() if handle.upload is upload)

    def _at(self, path: str) -> str:
        return f"{self._spool}/{path}" if path else self._spool

    def _answer(self, path: str) -> Attributes:
        """What `stat` tells of a name that was imported."""
        receipt = self._delivery.answer(path)
        if receipt is None:
            raise NotFoundError(f"{INCOMING}/{printable(path)} is not there")
        size, mtime_ns, uid = receipt
        return Attributes(_FILE_MODE, inode_of(f"/{INCOMING}/{path}"), 1, size, mtime_ns, mtime_ns, uid)

    def _empty(self, number: int) -> None:
        """Begin a file anew. What another program has open, or what is being published, stays that: the name gets a new
        file."""
        handle = self._handles[number]
        with self._lock:
            upload = handle.upload
            if upload is not None and not upload.removed and (upload.taken or upload.handles > 1):
                self._unlink(upload)
                self._forget(upload)
                upload.handles -= 1
                handle.upload = None
        self._end_gone()
        was_written, was_dirty = handle.wrote, handle.is_dirty
        self._written(number).truncate(0)
        handle.wrote, handle.is_dirty = was_written, was_dirty  # an empty file decides nothing

    def _create(self, path: str, uid: int, mode: int = 0) -> Upload:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._at(path), flags, 0o600 | mode & stat.S_IXUSR)
        if uid != self._user and self._user == 0:
            os.fchown(descriptor, uid, -1)  # so that it is still theirs after a crash
        if not is_note(path):
            self._delivery.remove_note(path)
        return self._register(path, descriptor, uid)

    def _find(self, path: str) -> Upload | None:
        """The file that is here under a name; None if there is none, or it is a folder."""
        try:
            look = os.lstat(self._at(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(look.st_mode):
            return None
        known = self._uploads.get(look.st_ino)
        if known is not None:
            return known
        descriptor = os.open(self._at(path), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._register(path, descriptor, look.st_uid)

    def _register(self, path: str, descriptor: int, uid: int) -> Upload:
        upload = Upload(path, descriptor, uid, self._delivery.stage, self._slots)
        self._judge(upload, path)
        self._uploads[upload.inode] = upload
        return upload

    def _handle(self, path: str, uid: int, upload: Upload | None) -> int:
        if upload is not None:
            upload.handles += 1
        number = next(self._numbers)
        self._handles[number] = _Handle(path, uid, upload)
        return number

    def _let_go(self, upload: Upload) -> None:
        """Forget an upload that nobody has open, unless something staged waits for its final name."""
        if upload.handles or (upload.is_settled and not upload.imported and is_on_its_way(upload.path)):
            return
        if self._uploads.get(upload.inode) is upload:
            del self._uploads[upload.inode]
        self._gone.append(upload)

    def _forget(self, upload: Upload) -> None:
        """A file is gone from its name; who has it open keeps its bytes."""
        self._uploads.pop(upload.inode, None)
        upload.removed = True
        self._gone.append(upload)

    def _end_gone(self) -> None:
        """End what is forgotten, outside of the lock: the last close of a large file takes long."""
        while self._gone:
            with suppress(IndexError):  # another thread was faster
                upload = self._gone.popleft()
                if upload.taken is None:
                    self._delivery.withdraw(upload)
                    upload.stop()
                if upload.handles:
                    continue
                if upload.is_open and upload.status().st_size >= _LARGE:
                    threading.Thread(target=upload.close, name="close", daemon=True).start()
                else:
                    upload.close()

    def _below(self, path: str) -> Iterator[Upload]:
        return (upload for upload in list(self._uploads.values()) if upload.path.startswith(f"{path}/"))


def _file_attributes(look: os.stat_result, uid: int | None) -> Attributes:
    mode = _FILE_MODE | (0o111 if look.st_mode & stat.S_IXUSR else 0)
    return Attributes(mode, look.st_ino, 1, look.st_size, look.st_mtime_ns, look.st_ctime_ns, uid)
