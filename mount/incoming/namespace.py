"""Namespace: the names in `incoming/`, and how they change. A file that is copied in lies in the spool until it is a
model.

The operation that ends an upload returns the outcome of the import. For most programs that is flush
(`mount.incoming.handles`). For programs that write under another name first, it is rename (here). For a model that
comes as a directory, it is fsync of the directory (`mount.incoming.folders`). Imported names are no longer listed.

Paths are relative to `incoming/`, which itself is the empty path. Knows no FUSE. Threading: any thread. The spool's
lock guards names, and is not held while an upload is decided.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable

from bentofs.mount.incoming.control_files import controlled_path
from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.folders import Folders
from bentofs.mount.incoming.handles import UploadHandles
from bentofs.mount.incoming.imported import ImportedNames
from bentofs.mount.incoming.names import is_on_its_way, is_rsyncs, may_be_archive
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.spool_names import SpoolNames
from bentofs.mount.incoming.undecided import MARK
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.view.nodes import Attributes, Item, inode_of
from bentofs.mount.view.tree import INCOMING
from bentofs.store.errors import StoreError
from bentofs.store.model.model import MODEL_YAML
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_NOW_NS = 100_000_000  # ns; a time this close to the clock counts as now
_FOLDER_MODE = stat.S_IFDIR | 0o755


class Namespace:
    """One mount's `incoming/`: its names, its open `files`, and the `folders` in it."""

    def __init__(
        self,
        spool: Spool,
        files: UploadHandles,
        folders: Folders,
        finalizer: Finalizer,
        imported: ImportedNames,
        reports: Reports,
        calling_user: Callable[[], int],
        make_again: Callable[[], None],
        mode: int = 0o755,
    ) -> None:
        """`calling_user`: returns the uid whose request this thread serves; `make_again`: creates removed parts of the
        spool again; `mode`: the permissions of `incoming/`."""
        self.files = files
        self.folders = folders
        self._make_again = make_again
        self._spool = spool
        self._finalizer = finalizer
        self._imported = imported
        self._reports = reports
        self._calling_user = calling_user
        self._mode = stat.S_IFDIR | mode

    def attributes(self, path: str) -> Attributes:
        """Return what `stat` tells.

        Raises:
            NotFoundError: there is no such name, and nothing was imported under it.
        """
        try:
            look = os.lstat(self._spool.at(path))
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.isdir(self._spool.root):
                self._make_again()
            if path:
                return self._imported.attributes(path, self._calling_user())
            look = os.lstat(self._spool.root)
        if not path:
            return Attributes(
                self._mode, inode_of(f"/{INCOMING}"), look.st_nlink, 0, look.st_mtime_ns, look.st_ctime_ns
            )
        if stat.S_ISDIR(look.st_mode):
            uid = self._spool.owners.of(look)
            return Attributes(_FOLDER_MODE, look.st_ino, look.st_nlink, 0, look.st_mtime_ns, look.st_ctime_ns, uid)
        return self._spool.attributes_of(path, look)

    def items(self, path: str) -> list[Item]:
        """Return the entries of a directory."""
        items = []
        with os.scandir(self._spool.at(path)) as found:
            for entry in found:
                kind = stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG
                items.append(Item(entry.name, kind, entry.inode()))
        return items

    def check_folder(self, path: str) -> None:
        """Raise NotFoundError or NotADirectoryError if no directory is there."""
        if not stat.S_ISDIR(self.attributes(path).mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def rename(self, old: str, new: str) -> None:
        """Rename a file. If that gives the file its final name, import it.

        Raises:
            StoreError: why it was not imported. It keeps its old name, unless that is one of rsync's: rsync removes a
                file that it cannot rename, and the bytes must stay for a resume.
        """
        with self._spool.locked() as names:
            upload = names.find(old)
            if upload is None:
                self._rename_other(names, old, new)
                return
            names.hold(upload)
        try:
            self._rename_file(upload, old, new)
        finally:
            self._spool.let_go(upload)
        if not upload.kind.is_archive:
            self._decide_controlled(old)

    def _rename_file(self, upload: Upload, old: str, new: str) -> None:
        with self._spool.locked() as names:  # whichever handle is closed from now on, the file has its new name
            is_written = self.files.is_being_written(names, upload) and not upload.state.is_decided
            moves_anyway = is_rsyncs(old) or self._spool.is_on_its_way(new) or is_written
            if moves_anyway:
                names.move(upload, old, new)
                names.mark(upload)
        if not moves_anyway:
            upload.reconsider()
            try:
                self._finalizer.finalize(upload, new)
            finally:
                self._spool.judge(upload, old)
            if not upload.is_imported:
                with self._spool.locked() as names:
                    names.move(upload, old, new)
        elif not is_written:  # else the end of the writing decides
            self._finalizer.finalize(upload)

    def unlink(self, path: str) -> None:
        """Remove a file. A model imported from it stays in the store."""
        with self._spool.locked() as names:
            upload = names.find(path)
            if upload is None:
                self._imported.attributes(path, self._calling_user())
                self._imported.forget(path, self._calling_user())
                return
            names.remove(path, upload)
        self._reports.notes.remove(path)
        if not upload.kind.is_archive:
            self._decide_controlled(path)

    def set_mode(self, path: str, mode: int) -> None:
        """Do chmod: keep the executable bit of a file. The model decides all other bits."""
        try:
            look = os.lstat(self._spool.at(path))
        except (FileNotFoundError, NotADirectoryError):
            self._imported.attributes(path, self._calling_user())
            return
        if stat.S_ISREG(look.st_mode):
            os.chmod(self._spool.at(path), 0o600 | mode & stat.S_IXUSR | look.st_mode & MARK)

    def set_times(self, path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
        """Do utimens. None leaves a time unchanged."""
        at = self._spool.at(path)
        try:
            look = os.lstat(at)
        except (FileNotFoundError, NotADirectoryError):
            self._imported.attributes(path, self._calling_user())
            if mtime_ns is not None:
                self._imported.set_mtime(path, self._calling_user(), mtime_ns)
            return
        if mtime_ns is not None and abs(time.time_ns() - mtime_ns) < _NOW_NS:
            self._spool.touch(look)
        times = (look.st_atime_ns if atime_ns is None else atime_ns, look.st_mtime_ns if mtime_ns is None else mtime_ns)
        os.utime(at, ns=times)

    def _decide_controlled(self, control: str) -> None:
        """Decide the file that belongs to a removed control file, unless its writer will still close it. A failure is
        reported as usual, but removing the control file succeeds."""
        path = controlled_path(control)
        if path is None:
            return
        with self._spool.locked() as names:
            upload = names.find(path)
            if upload is None or self._spool.is_on_its_way(path) or self.files.is_being_written(names, upload):
                return
            names.hold(upload)
        try:
            self._finalizer.finalize(upload)
        except (StoreError, OSError) as error:
            log.debug("%s was refused: %s", printable(path), error)
        finally:
            self._spool.let_go(upload)

    def _rename_other(self, names: SpoolNames, old: str, new: str) -> None:
        """Rename a directory or an imported name."""
        at = self._spool.at(old)
        if not os.path.lexists(at):
            self._imported.attributes(old, self._calling_user())
            replaced = names.find(new)
            if replaced is not None:
                names.remove(new, replaced)
            self._imported.rename(old, new, self._calling_user())
            return
        if is_on_its_way(old) and not is_on_its_way(new) and _holds_archives(at, new):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))  # so mv copies each file, with its own outcome
        os.rename(at, self._spool.at(new))
        names.move_below(old, new)


def _holds_archives(root: str, new: str) -> bool:
    """Return True if the directory `root` holds files that would be imported if its path were `new`."""
    for folder, folders, files in os.walk(root):
        if MODEL_YAML in files:
            folders.clear()
            continue
        below = new + folder[len(root) :]
        if any(may_be_archive(f"{below}/{name}") and not is_on_its_way(f"{below}/{name}") for name in files):
            return True
    return False
