"""Spool: the files copied into `incoming/`, until they are models, and the lock that guards their names and uploads.

`Spool.locked` takes the lock and gives `SpoolNames`. Only these can look up, create, rename and forget uploads. A
method of another class that needs the lock takes the names as its first argument. The lock is never held while bytes
are written, staged or published. It is not reentrant.

Paths are relative to `incoming/`, which itself is the empty path. Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bentofs.mount.incoming.control_files import has_control_file
from bentofs.mount.incoming.names import FILE_MODE
from bentofs.mount.incoming.spool_names import SpoolNames, UploadFactory
from bentofs.mount.incoming.spool_paths import SpoolPaths
from bentofs.mount.incoming.undecided import is_undecided, shown_mtime_ns, shown_size
from bentofs.mount.incoming.upload import Upload
from bentofs.mount.view.nodes import Attributes


class Spool(SpoolPaths):
    """The spool of one mount."""

    def __init__(self, root: str, factory: UploadFactory) -> None:
        """`root`: the private directory for uploads."""
        super().__init__(root)
        self.owners = factory.owners
        self._lock = threading.Lock()
        self._names = SpoolNames(self, factory)

    @contextmanager
    def locked(self) -> Iterator[SpoolNames]:
        """Hold the lock in this block. After it, end the uploads that were forgotten."""
        try:
            with self._lock:
                yield self._names
        finally:
            self._end_forgotten()

    def let_go(self, upload: Upload) -> None:
        """Drop one handle of an upload."""
        with self.locked() as names:
            names.let_go(upload)

    def attributes_of(self, path: str, look: os.stat_result, upload: Upload | None = None) -> Attributes:
        """Return what `stat` tells about a file here; `upload`: its upload if the caller has it open."""
        is_open = upload is not None
        upload = upload or self._names.known(look.st_ino)
        uid = upload.uid if upload else self.owners.of(look)
        size, mtime_ns = look.st_size, look.st_mtime_ns
        if is_undecided(look) and not has_control_file(self.at(path)):  # the downloader needs the true ones
            if upload is None:
                size = self._shown_size(path)
            elif upload.mark.is_short:
                # Another thread may close an upload that the caller has not open.
                size = shown_size(upload.file.fileno()) if is_open else self._shown_size(path)
            mtime_ns = shown_mtime_ns(look)
        mode = FILE_MODE | (0o111 if look.st_mode & stat.S_IXUSR else 0)
        return Attributes(mode, look.st_ino, 1, size, mtime_ns, look.st_ctime_ns, uid)

    def _shown_size(self, path: str) -> int:
        descriptor = os.open(self.at(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return shown_size(descriptor)
        finally:
            os.close(descriptor)

    def touch(self, look: os.stat_result) -> None:
        """Note that a program set a file's times to now."""
        upload = self._names.known(look.st_ino)
        if upload is not None:
            upload.touch()

    def running(self) -> list[Upload]:
        """Return the uploads that have begun and are undecided."""
        with self.locked() as names:
            return [upload for upload in names.uploads() if upload.receipt.is_running]

    def close(self) -> None:
        """Stop all uploads. Their files stay."""
        with self.locked() as names:
            uploads = names.uploads()
        for upload in uploads:
            upload.stop()

    def _end_forgotten(self) -> None:
        """End the forgotten uploads, without the lock: the last close of a large file takes long."""
        while (upload := self._names.take_forgotten()) is not None:
            if upload.state.takes_bytes:
                upload.withdraw()
                upload.stop()
            with self._lock:
                is_open = self._names.handles(upload) > 0
            if not is_open:
                upload.close()
