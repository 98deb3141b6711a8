"""Changes: MKCOL, DELETE, COPY and MOVE in `incoming/`, as a program does them in a mount. Paths are below `incoming/`.

All methods run in the threads of the site.
"""

from __future__ import annotations

import errno
import os
import stat

from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.serve.site import Site
from bentofs.store.errors import NotFoundError, StoreError
from bentofs.store.util.aligned_buffer import page_buffer

_BLOCK = 1 << 20  # bytes
Failures = list[tuple[str, Exception]]


class Changes:
    """The changes of one drop box."""

    def __init__(self, site: Site, namespace: Namespace) -> None:
        self._user = site.user
        self._namespace = namespace

    def is_folder(self, below: str) -> bool | None:
        """Tell whether a directory is there. Return None if nothing is."""
        try:
            return stat.S_ISDIR(self._namespace.attributes(below).mode)
        except (NotFoundError, NotADirectoryError):
            return None

    def make_folder(self, below: str) -> None:
        """Make a directory."""
        self._namespace.folders.make(below, self._user)

    def delete(self, below: str) -> Failures:
        """Delete a file, or a directory with all in it. Return what could not be deleted, and why."""
        failures: Failures = []
        self._delete(below, failures)
        return failures

    def move(self, old: str, new: str) -> None:
        """Rename a file or directory. If a file gets its final name so, it is imported.

        Raises:
            StoreError: why it was not.
        """
        self._namespace.rename(old, new)

    def copy(self, old: str, new: str, *, deep: bool) -> Failures:
        """Copy a file, or a directory; `deep`: with all in it. Return what could not be copied, and why."""
        failures: Failures = []
        self._copy(old, new, failures, deep=deep)
        return failures

    def _delete(self, below: str, failures: Failures) -> bool:
        try:
            if not self.is_folder(below):
                self._namespace.unlink(below)
                return True
            deleted = [self._delete(f"{below}/{item.name}", failures) for item in self._namespace.items(below)]
            if all(deleted):
                self._namespace.folders.remove(below)
            return all(deleted)
        except (StoreError, OSError) as error:
            failures.append((below, error))
            return False

    def _copy(self, old: str, new: str, failures: Failures, *, deep: bool) -> None:
        try:
            if not self.is_folder(old):
                self._copy_file(old, new)
                return
            self.make_folder(new)
            for item in self._namespace.items(old) if deep else ():
                self._copy(f"{old}/{item.name}", f"{new}/{item.name}", failures, deep=True)
        except (StoreError, OSError) as error:
            failures.append((new, error))

    def _copy_file(self, old: str, new: str) -> None:
        files = self._namespace.files
        source = files.open(old, os.O_RDONLY, self._user)
        try:
            size = files.attributes(source).size
            mode = files.attributes(source).mode
            target = files.create(new, os.O_WRONLY, mode, self._user)
            try:
                buffer, offset = page_buffer(_BLOCK), 0
                while offset < size:
                    got = files.read_into(source, buffer[: size - offset], offset)
                    if not got:
                        raise OSError(errno.EIO, os.strerror(errno.EIO))
                    files.write(target, buffer[:got], offset)
                    offset += got
                if not size:
                    self._namespace.set_times(new, None, self._namespace.attributes(old).mtime_ns)
                files.flush(target)
            finally:
                files.release(target)
        finally:
            files.release(source)
