"""Spool: the directory that holds the files copied into `incoming/`, in the same layout, until they are models.

It knows the upload of each of its files, and the names that were imported. Those files are gone, but `stat` answers for
them while their models exist, so that rsync sends nothing twice.

Paths are relative to `incoming/`, which itself is the empty path. Knows no FUSE. Threading: any thread. `lock` guards
names, uploads and their handles. A method that needs it says "under the lock". It is never held while bytes are
written, staged or published.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from cachetools import LRUCache

from bentofs.mount.incoming.control_files import has_control_file
from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.names import is_note, is_on_its_way, may_be_archive, must_be_archive
from bentofs.mount.incoming.staging_run import Slots
from bentofs.mount.incoming.undecided import is_undecided, shown_mtime_ns, shown_size
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.incoming.written_ranges import WrittenRanges
from bentofs.mount.view.nodes import Attributes, inode_of
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import CancelledError, NotFoundError
from bentofs.store.model.model import MODEL_YAML
from bentofs.store.util.display import printable
from bentofs.store.util.memory_budget import MemoryBudget

_IMPORTED_KEPT = 10_000
_WAITING_KEPT = 500  # uploads without a handle that are not forgotten: each has a descriptor
_LARGE = 256 << 20  # bytes of a removed file whose last close takes a noticeable time
_FILE_MODE = stat.S_IFREG | 0o644


class Spool:
    """The spool of one mount."""

    def __init__(
        self,
        root: str,
        ranges: str,
        delivery: Delivery,
        calling_user: Callable[[], int],
        budget: MemoryBudget | None = None,
    ) -> None:
        """`root`, `ranges`: private directories for uploads and for their written ranges; `calling_user`: returns the
        uid whose request this thread serves; `budget`: None for a budget of its own."""
        self.root = root
        self._ranges = ranges
        self.calling_user = calling_user
        self.lock = threading.RLock()
        self.owners = delivery.owners
        self._delivery = delivery
        self._uploads: dict[int, Upload] = {}  # by the inode of the spooled file
        self._imported_below: LRUCache[str, bool] = LRUCache(_IMPORTED_KEPT)  # archives that lay in directories
        self._gone: deque[Upload] = deque()  # forgotten, to be ended outside the lock
        self._slots = Slots(budget or MemoryBudget())

    def at(self, path: str) -> str:
        """Return the path on disk of a file or directory."""
        return f"{self.root}/{path}" if path else self.root

    def answer(self, path: str, uid: int | None = None) -> Attributes:
        """Return what `stat` tells a user about a name under which this user imported something. The name is free for
        other users. `uid`: None for the calling user.

        Raises:
            NotFoundError: the user imported nothing under it, or its model is gone.
        """
        uid = self.calling_user() if uid is None else uid
        receipt = self._delivery.answer(path, uid)
        if receipt is None:
            raise NotFoundError(f"{INCOMING}/{printable(path)} is not there")
        size, mtime_ns, _ = receipt
        return Attributes(_FILE_MODE, inode_of(f"/{INCOMING}/{path}"), 1, size, mtime_ns, mtime_ns, uid)

    def create(self, path: str, uid: int, mode: int = 0) -> Upload:
        """Create a file; under the lock. Of its mode, only the executable bit is kept."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.at(path), flags, 0o600 | mode & stat.S_IXUSR)
        self.owners.give(descriptor, uid)
        self._delivery.remove_note(path)
        return self._register(path, descriptor, uid, is_new=True)

    def find(self, path: str) -> Upload | None:
        """Return the upload of the file with this name. Return None if there is none, or if it is a directory. Under
        the lock."""
        try:
            look = os.lstat(self.at(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(look.st_mode):
            return None
        known = self._uploads.get(look.st_ino)
        if known is not None:
            return known
        descriptor = os.open(self.at(path), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._register(path, descriptor, self.owners.of(look))

    def find_unwritten_below(self, path: str) -> str | None:
        """Return the path of a file below a directory that has unwritten bytes; under the lock."""
        unwritten = os.listdir(self._ranges)
        if not unwritten:
            return None
        for folder, _, files in os.walk(self.at(path)):
            for name in files:
                file = os.path.join(folder, name)
                look = os.lstat(file)
                if str(look.st_ino) in unwritten and self._has_gap(look):
                    return os.path.relpath(file, self.root)
        return None

    def find_below(self, path: str) -> Iterator[Upload]:
        """Yield the files below a directory that are uploads now; under the lock."""
        return (upload for upload in list(self._uploads.values()) if upload.path.startswith(f"{path}/"))

    def file_attributes(self, path: str, look: os.stat_result, upload: Upload | None = None) -> Attributes:
        """Return what `stat` tells about a file here; `upload`: None if it is not known."""
        upload = upload or self._uploads.get(look.st_ino)
        uid = upload.uid if upload else self.owners.of(look)
        size, mtime_ns = look.st_size, look.st_mtime_ns
        if is_undecided(look) and not has_control_file(self.at(path)):  # the downloader needs the true ones
            size = shown_size(look) if upload is None or upload.is_short else size
            mtime_ns = shown_mtime_ns(look)
        mode = _FILE_MODE | (0o111 if look.st_mode & stat.S_IXUSR else 0)
        return Attributes(mode, look.st_ino, 1, size, mtime_ns, look.st_ctime_ns, uid)

    def mark(self, upload: Upload) -> None:
        """Mark an upload as undecided if closing it decides something. Otherwise clear the mark. Under the lock."""
        upload.mark((upload.is_archive or is_note(upload.path)) and not self.is_on_its_way(upload.path))

    def is_on_its_way(self, path: str) -> bool:
        """Return True if a file of this name is not to be imported yet: its name says so, or a downloader's control
        file lies beside it."""
        return is_on_its_way(path) or has_control_file(self.at(path))

    def touch(self, look: os.stat_result) -> None:
        """Note that a program set a file's times to now."""
        with self.lock:
            upload = self._uploads.get(look.st_ino)
            if upload is not None:
                upload.is_touched = True

    def judge(self, upload: Upload, path: str) -> None:
        """Decide the kind of an upload by its path. In a directory that is a model, it is a file of that model. A
        downloader's control file is never imported."""
        if upload.is_control_file(self.at(path)):
            upload.is_archive = upload.is_strict = upload.fails_early = False
            return
        folders = path.split("/")[:-1]
        in_model = any(
            os.path.lexists(self.at("/".join([*folders[: depth + 1], MODEL_YAML]))) for depth in range(len(folders))
        )
        upload.is_archive = may_be_archive(path) and not in_model
        upload.is_strict = must_be_archive(path) and not in_model
        # rsync learns of a refusal from the rename, and goes on with its next file. A failed write would end it.
        upload.fails_early = upload.is_strict and not self.is_on_its_way(path)

    def remove(self, path: str, upload: Upload) -> None:
        """Remove the file that was found under a name; under the lock."""
        os.unlink(self.at(path))
        self.forget(upload, "it was removed before it was imported")

    def detach(self, upload: Upload) -> None:
        """Free an upload's name for another file; under the lock."""
        self._unlink(upload)
        self.replace(upload, "another program began the file anew before this copy of it was whole")

    def has_become_model(self, upload: Upload, path: str) -> None:
        """Remove the file that was imported under a name; under the lock."""
        self._uploads.pop(upload.inode, None)
        if upload.imported_as:
            self._delivery.read_back.keep(upload.imported_as, upload.duplicate())
        self._unlink(upload)
        upload.written.forget()
        replaced = self.find(path) if path != upload.path else None
        if replaced is not None:
            self.remove(path, replaced)
        if "/" in path:
            self._imported_below[path] = True

    def imported_below(self, path: str) -> str | None:
        """Return the path of an archive that lay in a directory and was imported as a model of its own; under the
        lock."""
        return next((known for known in self._imported_below if known.startswith(f"{path}/")), None)

    def forget_imported_below(self, path: str) -> None:
        """Forget the imported archives of a directory that is gone; under the lock."""
        for alone in [known for known in self._imported_below if known.startswith(f"{path}/")]:
            del self._imported_below[alone]

    def move_imported_below(self, old: str, new: str) -> None:
        """Move the imported archives of a directory that was renamed; under the lock."""
        self.forget_imported_below(new)
        for alone in [known for known in self._imported_below if known.startswith(f"{old}/")]:
            del self._imported_below[alone]
            self._imported_below[new + alone[len(old) :]] = True

    def let_go(self, upload: Upload) -> None:
        """Drop one handle of an upload; under the lock. If it was the last one, forget the upload.

        Two kinds are kept: a settled upload that waits for its final name, and one with a failed write, whose directory
        must not be imported. Of too many kept uploads, the oldest is forgotten, and may have to be staged again.
        """
        upload.handles -= 1
        if upload.handles:
            return
        is_waiting = upload.is_settled and not upload.imported and self.is_on_its_way(upload.path)
        if is_waiting or (upload.failure is not None and not upload.is_archive and upload.gone is None):
            waiting = [other for other in self._uploads.values() if not other.handles]
            if len(waiting) <= _WAITING_KEPT:
                return
            upload = waiting[0]
        if self._uploads.get(upload.inode) is upload:
            del self._uploads[upload.inode]
        self._gone.append(upload)

    def forget(self, upload: Upload, why: str) -> None:
        """Forget a file that has lost its name. Programs that have it open keep its bytes. Under the lock."""
        self._uploads.pop(upload.inode, None)
        upload.written.forget()
        upload.gone = CancelledError(why)
        self._gone.append(upload)

    def replace(self, upload: Upload, why: str) -> None:
        """Do what `forget` does, for a file whose name another file gets."""
        upload.is_replaced = True
        self.forget(upload, why)

    def end_gone(self) -> None:
        """End the forgotten uploads, outside the lock: the last close of a large file takes long."""
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

    def running(self) -> list[Upload]:
        """Return the uploads that have begun and are undecided."""
        with self.lock:
            return [upload for upload in self._uploads.values() if upload.receipt is not None]

    def close(self) -> None:
        """Stop all uploads. Their files stay."""
        with self.lock:
            uploads = list(self._uploads.values())
            self._uploads.clear()
        for upload in uploads:
            upload.stop()

    def _register(self, path: str, descriptor: int, uid: int, *, is_new: bool = False) -> Upload:
        look = os.fstat(descriptor)
        written = WrittenRanges(self._ranges_of(look), look.st_size, is_new=is_new)
        upload = Upload(path, descriptor, uid, self._delivery.stage, self._slots, written)
        self.judge(upload, path)
        self._uploads[upload.inode] = upload
        return upload

    def _has_gap(self, look: os.stat_result) -> bool:
        known = self._uploads.get(look.st_ino)
        if known is not None:
            return known.written.gap() is not None
        written = WrittenRanges(self._ranges_of(look), look.st_size)
        has_gap = written.gap() is not None
        written.close()
        return has_gap

    def _ranges_of(self, look: os.stat_result) -> str:
        return f"{self._ranges}/{look.st_ino}"

    def _unlink(self, upload: Upload) -> None:
        """Remove the file of an upload, if it still has its name."""
        with suppress(FileNotFoundError):
            if os.lstat(self.at(upload.path)).st_ino == upload.inode:
                os.unlink(self.at(upload.path))
