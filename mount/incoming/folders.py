"""Folders: the directories that are copied into `incoming/`, and their owners. A directory that is a model is
imported when a program syncs it.

Knows no FUSE. Threading: any thread. A directory is taken out of the spool under the spool's lock, and published
without it.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import suppress

from bentofs.mount.incoming.control_files import find_control_file
from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.spool import Spool
from bentofs.store.errors import DamagedArchiveError, InUseError, NotAModelError, StoreError
from bentofs.store.model.model import MODEL_YAML
from bentofs.store.util.display import printable
from bentofs.store.util.fs import sync_path

log = logging.getLogger(__name__)


class Folders:
    """The directories of one spool."""

    def __init__(self, spool: Spool, delivery: Delivery) -> None:
        self._spool = spool
        self._delivery = delivery

    def make(self, path: str, uid: int) -> None:
        """Make a directory that belongs to a user."""
        at = self._spool.at(path)
        with self._spool.lock:
            os.mkdir(at, 0o700)
            self._spool.owners.give(at, uid)

    def remove(self, path: str) -> None:
        """Remove an empty directory."""
        if not path:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        with self._spool.lock:
            os.rmdir(self._spool.at(path))
            self._spool.forget_imported_below(path)

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
        with self._spool.lock:
            uid = self._spool.owners.of(os.lstat(self._spool.at(path)))
            uploads = list(self._spool.find_below(path))
            if any(upload.handles for upload in uploads):
                busy = InUseError("a file in it is still being written: sync the directory when that is done")
                self._delivery.refuse_path(path, uid, busy)
                raise busy
            short = next((upload.path for upload in uploads if upload.failure is not None), None)
            if short is not None:
                damaged = DamagedArchiveError(f"{printable(short)} could not be written to its end: copy it again")
                self._delivery.refuse_path(path, uid, damaged)
                raise damaged
            control = find_control_file(self._spool.at(path))
            if control is not None:
                shown = printable(os.path.relpath(control, self._spool.root))
                loading = InUseError(
                    f"a file in it is still being downloaded: sync the directory when {shown} has gone"
                )
                self._delivery.refuse_path(path, uid, loading)
                raise loading
            unwritten = self._spool.find_unwritten_below(path)
            if unwritten is not None:
                damaged = DamagedArchiveError(
                    f"{printable(unwritten)} was made longer, and not all of its bytes came: copy it again, with all "
                    "of its zeros (cp --sparse=never)"
                )
                self._delivery.refuse_path(path, uid, damaged)
                raise damaged
            alone = self._spool.imported_below(path)
            if alone is not None:
                error = NotAModelError(
                    f"{printable(alone)} came before the model.yaml and was imported as a model of its own, so this is "
                    "not whole: remove it and copy it again, model.yaml first, or as an archive"
                )
                self._delivery.refuse_path(path, uid, error)
                raise error
            for upload in uploads:
                self._spool.forget(upload, f"it is a file of the directory {printable(path)}")
            taken = self._delivery.take_folder(path)
        self._spool.end_gone()
        self._delivery.deliver_folder(path, taken, uid)

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
        with self._spool.lock:
            return any(upload.handles for upload in self._spool.find_below(path))
