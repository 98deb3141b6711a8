"""Folders: the directories that are copied into `incoming/`, and their owners. A directory that is a model is imported
when a program syncs it.

Knows no FUSE. Threading: any thread. A directory is taken out of the spool under the spool's lock, and published
without it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress

from bentofs.mount.incoming.control_files import find_control_file
from bentofs.mount.incoming.folder_delivery import FolderDelivery
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.spool_names import SpoolNames
from bentofs.store.errors import DamagedArchiveError, InUseError, NotAModelError, StoreError
from bentofs.store.model.model import MODEL_YAML
from bentofs.store.util.display import printable
from bentofs.store.util.fs import sync_path


class Folders:
    """The directories of one spool."""

    def __init__(self, spool: Spool, delivery: FolderDelivery, reports: Reports) -> None:
        self._spool = spool
        self._delivery = delivery
        self._reports = reports

    def make(self, path: str, uid: int) -> None:
        """Make a directory that belongs to a user."""
        at = self._spool.at(path)
        with self._spool.locked():
            os.mkdir(at, 0o700)
            self._spool.owners.give(at, uid)

    def remove(self, path: str) -> None:
        """Remove an empty directory."""
        if not path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        with self._spool.locked() as names:
            os.rmdir(self._spool.at(path))
            names.imported_below.forget(path)

    def sync(self, path: str, uid: int) -> None:
        """Sync a directory to disk, and import the models that came as directories at or below it. Only models of this
        user are imported, or all of them if root asks. Nothing is imported if the directory is `incoming/` itself:
        programs sync the directory above a file that they renamed.

        Raises:
            StoreError: of the first model that could not be imported.
        """
        sync_path(self._spool.at(path))
        failed: StoreError | OSError | None = None
        for folder in list(self.models(path)) if path else ():
            try:
                owners = self._spool.owners
                if uid not in (0, owners.user, owners.of(os.lstat(self._spool.at(folder)))):
                    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
                self.import_model(folder)
            except (StoreError, OSError) as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def models(self, path: str) -> Iterator[str]:
        """Yield the directories at or below a path that hold a `model.yaml`, except `incoming/` itself."""
        for folder, folders, files in os.walk(self._spool.at(path)):
            below = os.path.relpath(folder, self._spool.root)
            if below != "." and MODEL_YAML in files:
                yield below
                folders.clear()
            else:
                folders[:] = [name for name in folders if not name.startswith(".")]

    def import_model(self, path: str) -> None:
        """Import a directory that was copied in.

        Raises:
            StoreError: why it is no model; the directory is as before.
        """
        with self._spool.locked() as names:
            uid = self._spool.owners.of(os.lstat(self._spool.at(path)))
            error = self._obstacle(names, path)
            if error is None:
                for upload in names.find_below(path):
                    names.leave_to_folder(upload, printable(path))
                taken = self._delivery.take(names, path)
        if error is not None:
            self._reports.refuse_path(path, uid, error)
            raise error
        self._delivery.deliver(path, taken, uid)

    def newest_change(self, path: str) -> int:
        """Return the time of the newest change at or below a directory (ns, wall clock)."""
        newest = 0
        for folder, _, files in os.walk(self._spool.at(path)):
            for name in ("", *files):
                with suppress(FileNotFoundError):
                    newest = max(newest, os.lstat(os.path.join(folder, name)).st_ctime_ns)
        return newest

    def is_busy(self, path: str) -> bool:
        """Return True if a file below a directory is open."""
        with self._spool.locked() as names:
            return _has_open_file(names, path)

    def _obstacle(self, names: SpoolNames, path: str) -> StoreError | None:
        """Return the error that keeps a directory from being imported now, or None."""
        if _has_open_file(names, path):
            return InUseError("a file in it is still being written: sync the directory when that is done")
        for upload in names.find_below(path):
            if upload.file.failure is not None:
                shown = printable(upload.path)
                return DamagedArchiveError(f"{shown} could not be written to its end: copy it again")
        control = find_control_file(self._spool.at(path))
        if control is not None:
            shown = printable(os.path.relpath(control, self._spool.root))
            return InUseError(f"a file in it is still being downloaded: sync the directory when {shown} has gone")
        unwritten = names.find_unwritten_below(path)
        if unwritten is not None:
            return DamagedArchiveError(
                f"{printable(unwritten)} was made longer, and not all of its bytes came: copy it again, with all "
                "of its zeros (cp --sparse=never)"
            )
        alone = names.imported_below.find(path)
        if alone is not None:
            return NotAModelError(
                f"{printable(alone)} came before the model.yaml and was imported as a model of its own, so this is "
                "not whole: remove it and copy it again, model.yaml first, or as an archive"
            )
        return None


def _has_open_file(names: SpoolNames, path: str) -> bool:
    return any(names.handles(upload) for upload in names.find_below(path))
