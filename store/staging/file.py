"""One file of a model that is being staged: written, digested, and passed on to be synced.

Threading: one thread writes a file; `has_written` may be called in the digester's thread.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple

from bentofs.store.errors import BadModelError, DamagedArchiveError
from bentofs.store.staging.fsync_batch import Syncer
from bentofs.store.staging.hashing import Digester, FileDigest
from bentofs.store.storage.base import Identity
from bentofs.store.util.display import printable
from bentofs.store.util.fs import writing

_MEMORY = 12 << 20  # bytes, about, for the known files of one model: 17,000 files
_MEMORY_EACH = 600  # bytes, about, beside a file's path
_COPIED = 1 << 20  # bytes copied at a time
_ZEROS = memoryview(bytes(256 << 10))
_CHECKED = 64 << 20  # bytes of zeros between two checks that the file is still wanted
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class StagedFile(NamedTuple):
    """The size, digests and identity of a complete file."""

    size: int  # bytes
    sha256: str  # hexadecimal; empty if it was left out
    crc32: int
    identity: Identity


class KnownFiles:
    """The known files of a model, by path. It holds all of them, or none if all would take too much memory."""

    def __init__(self) -> None:
        self._files: dict[str, StagedFile] = {}
        self._taken = 0  # bytes

    def __setitem__(self, path: str, file: StagedFile) -> None:
        if self._taken <= _MEMORY:
            self._taken += _MEMORY_EACH + sys.getsizeof(path)
            self._files[path] = file
            if self._taken > _MEMORY:
                self._files = {}

    def renew(self, path: str, identity: Identity) -> None:
        """Renew the identity of a known file whose content has not changed."""
        if path in self._files:
            self._files[path] = self._files[path]._replace(identity=identity)

    def forget(self, path: str) -> None:
        """Forget a file that was removed."""
        self._files.pop(path, None)

    def below(self, folder: str) -> Mapping[str, StagedFile]:
        """Return the known files of a directory, by path below it; `folder`: "" for the top."""
        if not folder:
            return self._files
        prefix = f"{folder}/"
        return {path.removeprefix(prefix): file for path, file in self._files.items() if path.startswith(prefix)}


class StagedFileWriter:
    """The writer of a new file, used as a context manager. After an exception, a part of the file stays there."""

    def __init__(
        self,
        path: str,
        descriptor: int,
        digester: Digester,
        syncer: Syncer,
        grow: Callable[[int], None],
        has_written: Callable[[str, StagedFile], None],
        *,
        has_sha256: bool,
    ) -> None:
        """`descriptor`: open for reading and writing, closed here. `grow`: called with the number of bytes before they
        are written. `has_written`: called with the complete file."""
        self.expected_crc32: int | None = None  # of the content; may be set until the context ends
        self._limit: int | None = None  # bytes
        self._on_complete: Callable[[bytes], object] | None = None
        self._path = path
        self._descriptor = descriptor
        self._digester = digester
        self._digest = FileDigest(digester, has_sha256=has_sha256)
        self._syncer = syncer
        self._grow = grow
        self._has_written = has_written
        self._size = 0

    def write(self, view: memoryview | bytes) -> None:
        """Append bytes. They must not change afterwards, because they are digested later."""
        view = memoryview(view)
        self._before(len(view))
        self._digest.update(view)
        with writing(self._path):
            done = 0
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._size + done)
        self._after(len(view))

    def copy_range(self, descriptor: int, offset: int, count: int) -> None:
        """Append bytes of another file. It must stay open and unchanged until the model is finished or discarded.

        The two files share the bytes if the file system can.

        Raises:
            DamagedArchiveError: the file is too short.
        """
        while count:
            part = min(count, _COPIED)
            self._before(part)
            with writing(self._path):
                part = self._copy(descriptor, offset, part)
            if not part:
                raise DamagedArchiveError.cut_short(f"it ends within {printable(self._path)!r}")
            self._digest.update_from(descriptor, offset, part)
            self._after(part)
            offset += part
            count -= part

    def write_zeros(self, count: int, check: Callable[[], object]) -> None:
        """Append `count` zeros. They take no room on the disk if the file system can do that. `check`: called now and
        then; an exception of it ends the work."""
        self._before(count)  # the whole count, to refuse it before any work is done
        with writing(self._path):
            os.ftruncate(self._descriptor, self._size + count)
        self._size += count
        for done in range(0, count, len(_ZEROS)):
            self._digester.check()
            self._digest.update(_ZEROS[: count - done])
            if done % _CHECKED == 0:
                check()

    def expect_small(self, limit: int, on_complete: Callable[[bytes], object]) -> None:
        """Refuse more than `limit` bytes with BadModelError. Call `on_complete` with the whole content at the end."""
        self._limit = limit
        self._on_complete = on_complete

    def __enter__(self) -> StagedFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._complete()
        except BaseException:
            os.close(self._descriptor)
            raise
        if kind is not None:
            os.close(self._descriptor)
            return
        with writing(self._path):
            self._syncer.file(self._descriptor, self._size)

    def _complete(self) -> None:
        with writing(self._path):
            identity = Identity.of(os.fstat(self._descriptor))
            content = os.pread(self._descriptor, self._size, 0) if self._on_complete is not None else b""
        size, expected = self._size, self.expected_crc32

        def done(sha256: str, crc32: int) -> None:
            if expected is not None and crc32 != expected:
                raise DamagedArchiveError.damaged(f"the CRC-32 of {printable(self._path)!r} is wrong")
            self._has_written(self._path, StagedFile(size, sha256, crc32, identity))

        self._digest.finish(done)
        if self._on_complete is not None:
            self._on_complete(content)

    def _before(self, count: int) -> None:
        self._digester.check()
        self._grow(count)
        if self._limit is not None and self._size + count > self._limit:
            raise BadModelError(f"{printable(self._path)!r} is larger than {self._limit:,} bytes: make it smaller")

    def _after(self, count: int) -> None:
        self._syncer.written(self._descriptor, self._size, self._size + count)
        self._size += count

    def _copy(self, descriptor: int, offset: int, count: int) -> int:
        try:
            copied = os.copy_file_range(descriptor, self._descriptor, count, offset, self._size)
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
            copied = 0
        # Some file systems copy nothing instead of failing.
        return copied or os.pwrite(self._descriptor, os.pread(descriptor, count, offset), self._size)
