"""One file of a model that is being staged: written, digested, and handed on to be synced.

Threading: one thread writes a file; `has_written` may be called in the digester's.
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

_MEMORY = 12 << 20  # bytes, about, for what is known of a model's files: of 17,000
_MEMORY_EACH = 600  # bytes, about, beside a file's path
_COPIED = 1 << 20  # bytes copied at a time
_ZEROS = memoryview(bytes(256 << 10))
_CHECKED = 64 << 20  # bytes of zeros between two looks at whether the file is still wanted
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class StagedFile(NamedTuple):
    """What is known of a complete file."""

    size: int  # bytes
    sha256: str  # hexadecimal
    crc32: int
    identity: Identity


class KnownFiles:
    """What is known of a model's files, by path: of all of them, or, where that would take too much memory, of none."""

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
        """A file that is known was changed in another way than its content."""
        if path in self._files:
            self._files[path] = self._files[path]._replace(identity=identity)

    def forget(self, path: str) -> None:
        """A file was removed."""
        self._files.pop(path, None)

    def below(self, folder: str) -> Mapping[str, StagedFile]:
        """The files of a folder, by path below it; "" for the top."""
        if not folder:
            return self._files
        prefix = f"{folder}/"
        return {path.removeprefix(prefix): file for path, file in self._files.items() if path.startswith(prefix)}


class StagedFileWriter:
    """A new file within its context. Leaving it by an exception leaves a part of the file there."""

    def __init__(
        self,
        path: str,
        descriptor: int,
        digester: Digester,
        syncer: Syncer,
        grow: Callable[[int], None],
        has_written: Callable[[str, StagedFile], None],
    ) -> None:
        """`descriptor`: open for reading and writing, closed here. `grow`: told of bytes before they are written."""
        self.expected_crc32: int | None = None  # what the content must have; may be set until the context ends
        self._limit: int | None = None  # bytes
        self._on_complete: Callable[[bytes], object] | None = None
        self._path = path
        self._descriptor = descriptor
        self._digester = digester
        self._digest = FileDigest(digester)
        self._syncer = syncer
        self._grow = grow
        self._has_written = has_written
        self._size = 0

    def write(self, view: memoryview | bytes) -> None:
        """Append bytes, which must stay as they are: they are digested later."""
        view = memoryview(view)
        self._before(len(view))
        self._digest.update(view)
        with writing(self._path):
            done = 0
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._size + done)
        self._after(len(view))

    def copy_range(self, descriptor: int, offset: int, count: int) -> None:
        """Append bytes of another file, which stays open and as it is until the model is finished or discarded.

        Where the file system can, the two share them.

        Raises:
            DamagedArchiveError: the file ends before.
        """
        while count:
            part = min(count, _COPIED)
            self._before(part)
            with writing(self._path):
                part = self._copy(descriptor, offset, part)
            if not part:
                raise DamagedArchiveError(f"the archive is cut short within {printable(self._path)!r}")
            self._digest.update_from(descriptor, offset, part)
            self._after(part)
            offset += part
            count -= part

    def write_zeros(self, count: int, check: Callable[[], object]) -> None:
        """Append so many zeros; where the file system can, they take no room on the disk. `check`: called now and then;
        what it raises ends the work."""
        self._before(count)  # all of it: refused before any work is done
        with writing(self._path):
            os.ftruncate(self._descriptor, self._size + count)
        self._size += count
        for done in range(0, count, len(_ZEROS)):
            self._digester.check()
            self._digest.update(_ZEROS[: count - done])
            if done % _CHECKED == 0:
                check()

    def expect_small(self, limit: int, on_complete: Callable[[bytes], object]) -> None:
        """Refuse more than `limit` bytes by BadModelError, and call `on_complete` with all of them at the end."""
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
                raise DamagedArchiveError(f"the archive is damaged: the CRC-32 of {printable(self._path)!r} is wrong")
            self._has_written(self._path, StagedFile(size, sha256, crc32, identity))

        self._digest.finish(done)
        if self._on_complete is not None:
            self._on_complete(content)

    def _before(self, count: int) -> None:
        self._digester.check()
        self._grow(count)
        if self._limit is not None and self._size + count > self._limit:
            raise BadModelError(f"{printable(self._path)!r} is larger than {self._limit:,} bytes")

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
        # Some file systems copy nothing where they should say that they cannot.
        return copied or os.pwrite(self._descriptor, os.pread(descriptor, count, offset), self._size)
