"""SpoolNames: the names and uploads of a spool, for a thread that holds its lock. `Spool.locked` gives them.

Paths are relative to `incoming/`. Knows no FUSE. Threading: one thread at a time, but for the methods that say so.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from bentofs.mount.incoming.imported_below import ImportedBelow
from bentofs.mount.incoming.names import is_note
from bentofs.mount.incoming.ownership import Ownership
from bentofs.mount.incoming.receipts import Receipts, UploadReceipt
from bentofs.mount.incoming.spool_paths import SpoolPaths
from bentofs.mount.incoming.staging_run import Stager
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.incoming.upload_file import UploadFile
from bentofs.mount.incoming.upload_state import UploadState
from bentofs.mount.incoming.written_ranges import WrittenRanges

_WAITING_KEPT = 500  # uploads without a handle that are not forgotten: each has a descriptor


class UploadFactory:
    """Makes the uploads of one spool."""

    def __init__(self, ranges: str, owners: Ownership, receipts: Receipts, stager: Stager) -> None:
        """`ranges`: the private directory for written ranges."""
        self.ranges = ranges
        self.owners = owners
        self._receipts = receipts
        self._stager = stager

    def written(self, look: os.stat_result, *, is_new: bool = False) -> WrittenRanges:
        """Return the written ranges of a file."""
        return WrittenRanges(f"{self.ranges}/{look.st_ino}", look.st_size, is_new=is_new)

    def make(self, path: str, descriptor: int, uid: int, *, is_new: bool = False) -> Upload:
        """Return the upload of an open file, which it closes."""
        file = UploadFile(descriptor, self.written(os.fstat(descriptor), is_new=is_new))
        return Upload(path, file, uid, UploadReceipt(self._receipts), self._stager)


class SpoolNames:
    """The names and uploads of a spool, for a thread that holds its lock."""

    def __init__(self, paths: SpoolPaths, factory: UploadFactory) -> None:
        self._paths = paths
        self._factory = factory
        self._uploads: dict[int, Upload] = {}  # by the inode of the spooled file
        self._handles: dict[Upload, int] = {}  # how often each is open
        self._forgotten: deque[Upload] = deque()  # to be ended without the lock
        self.imported_below = ImportedBelow()

    def known(self, inode: int) -> Upload | None:
        """Return the upload of a file, if there is one already. Needs no lock."""
        return self._uploads.get(inode)

    def uploads(self) -> Sequence[Upload]:
        """Return all uploads."""
        return list(self._uploads.values())

    def create(self, path: str, uid: int, mode: int = 0) -> Upload:
        """Create a file. Of its mode, only the executable bit is kept."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._paths.at(path), flags, 0o600 | mode & stat.S_IXUSR)
        self._factory.owners.give(descriptor, uid)
        return self._register(self._factory.make(path, descriptor, uid, is_new=True))

    def find(self, path: str) -> Upload | None:
        """Return the upload of the file with this name. Return None if there is none, or if it is a directory."""
        try:
            look = os.lstat(self._paths.at(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(look.st_mode):
            return None
        known = self._uploads.get(look.st_ino)
        if known is not None:
            return known
        descriptor = os.open(self._paths.at(path), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._register(self._factory.make(path, descriptor, self._factory.owners.of(look)))

    def find_below(self, path: str) -> Sequence[Upload]:
        """Return the files below a directory that are uploads now."""
        return [upload for upload in self._uploads.values() if upload.path.startswith(f"{path}/")]

    def find_unwritten_below(self, path: str) -> str | None:
        """Return the path of a file below a directory that has unwritten bytes."""
        unwritten = os.listdir(self._factory.ranges)
        if not unwritten:
            return None
        for folder, _, files in os.walk(self._paths.at(path)):
            for name in files:
                file = os.path.join(folder, name)
                look = os.lstat(file)
                if str(look.st_ino) in unwritten and self._has_gap(look):
                    return os.path.relpath(file, self._paths.root)
        return None

    def handles(self, upload: Upload) -> int:
        """Return how often an upload is open."""
        return self._handles.get(upload, 0)

    def hold(self, upload: Upload) -> None:
        """Open an upload once more."""
        self._handles[upload] = self.handles(upload) + 1

    def let_go(self, upload: Upload) -> None:
        """Drop one handle of an upload. If it was the last one, forget the upload.

        Two kinds are kept: a decided upload that waits for its final name, and one with a failed write, whose directory
        must not be imported. Of too many kept uploads, the oldest is forgotten, and may have to be staged again.
        """
        left = self._handles.pop(upload) - 1
        if left:
            self._handles[upload] = left
            return
        if self._outlives_handles(upload):
            waiting = [other for other in self._uploads.values() if not self.handles(other)]
            if len(waiting) <= _WAITING_KEPT:
                return
            upload = waiting[0]
        if self._uploads.get(upload.inode) is upload:
            del self._uploads[upload.inode]
        self._forgotten.append(upload)

    def mark(self, upload: Upload) -> None:
        """Mark an upload as undecided if closing it decides something. Otherwise clear the mark."""
        decides = upload.kind.is_archive or is_note(upload.path)
        upload.mark.set(decides and not self._paths.is_on_its_way(upload.path))

    def move(self, upload: Upload, old: str, new: str) -> None:
        """Rename the file of an upload. A file that had the new name is replaced."""
        replaced = self.find(new)
        os.rename(self._paths.at(old), self._paths.at(new))
        if replaced is not None and replaced is not upload:
            self._forget(replaced, UploadState.REPLACED, "another file was renamed to its name before it was imported")
        upload.rename(new)
        self._paths.judge(upload, new)

    def move_below(self, old: str, new: str) -> None:
        """Note that a directory was renamed."""
        for upload in self.find_below(old):
            upload.rename(new + upload.path[len(old) :])
        self.imported_below.move(old, new)

    def remove(self, path: str, upload: Upload) -> None:
        """Remove the file that was found under a name."""
        os.unlink(self._paths.at(path))
        self._forget(upload, UploadState.REMOVED, "it was removed before it was imported")

    def detach(self, upload: Upload) -> None:
        """Free an upload's name for another file."""
        self._unlink(upload)
        why = "another program began the file anew before this copy of it was whole"
        self._forget(upload, UploadState.REPLACED, why)

    def leave_to_folder(self, upload: Upload, folder: str) -> None:
        """Forget an upload that is a file of a directory, which is imported."""
        self._forget(upload, UploadState.REMOVED, f"it is a file of the directory {folder}")

    def has_become_model(self, upload: Upload, path: str) -> None:
        """Remove the file that was imported under a name."""
        self._uploads.pop(upload.inode, None)
        self._unlink(upload)
        upload.file.lose_name()
        replaced = self.find(path) if path != upload.path else None
        if replaced is not None:
            self.remove(path, replaced)
        self.imported_below.add(path)

    def take_forgotten(self) -> Upload | None:
        """Return an upload that was forgotten and is to be ended, or None. Needs no lock."""
        with suppress(IndexError):  # another thread was faster
            return self._forgotten.popleft()
        return None

    def _outlives_handles(self, upload: Upload) -> bool:
        if upload.state in (UploadState.CHECKED, UploadState.REFUSED) and self._paths.is_on_its_way(upload.path):
            return True
        return upload.file.failure is not None and not upload.kind.is_archive and upload.lost is None

    def _forget(self, upload: Upload, state: UploadState, why: str) -> None:
        """Forget a file that has lost its name. Programs that have it open keep its bytes."""
        self._uploads.pop(upload.inode, None)
        upload.lose_name(state, why)
        self._forgotten.append(upload)

    def _register(self, upload: Upload) -> Upload:
        self._paths.judge(upload, upload.path)
        self._uploads[upload.inode] = upload
        return upload

    def _has_gap(self, look: os.stat_result) -> bool:
        known = self._uploads.get(look.st_ino)
        if known is not None:
            return known.file.has_gap()
        written = self._factory.written(look)
        has_gap = written.gap() is not None
        written.close()
        return has_gap

    def _unlink(self, upload: Upload) -> None:
        """Remove the file of an upload, if it still has its name."""
        at = self._paths.at(upload.path)
        with suppress(FileNotFoundError):
            if os.lstat(at).st_ino == upload.inode:
                os.unlink(at)
