"""One pass: the SHA-256s of several archives of one model, with each of its files read once for all of them.

The archives are read together, in steps: the next step is always of the archive that is least far in the model's files.
So all of them want the same bytes at about the same time. The page cache has those of a large local file. Those of
small files, and of files on a server, stay in a few blocks of memory. A `.zip` has a file's CRC-32 before its content:
a large file whose CRC-32 is unknown is read once more for it.

Threading: the caller's thread reads, and a few threads hash. Files may be read by other threads, too, which compress.
"""

from __future__ import annotations

import hashlib
import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.chunk_maker import CORES
from bentofs.store.storage.base import Entry, Identity, OpenFile, Storage
from bentofs.store.storage.entries import FIRST_PATH
from bentofs.store.storage.pinned import WHOLE, OpenFiles, PinnedFile
from bentofs.store.util.aligned_buffer import page_buffer
from bentofs.store.util.keyed_lock import KeyedLock

_STEP = 512 << 10  # bytes of an archive that are read and hashed at a time
_BLOCK = 1 << 20  # bytes
_KEPT = 8 << 20  # bytes of all blocks
_Place = tuple[bool, bytes, int]  # in a model's files, in the order of archives: false for the first, path, offset
_Key = tuple[str, Identity, int]  # of a block: its file, and its number there


class SharedFiles:
    """The files of one model, which several readers read at about the same time."""

    def __init__(self, storage: Storage, open_files: OpenFiles) -> None:
        self.storage = storage
        self.open_files = open_files
        self._turns = KeyedLock()  # one reader fetches a block
        self._lock = threading.Lock()  # guards the fields below; not held while reading
        self._blocks: OrderedDict[_Key, memoryview] = OrderedDict()  # those used last at the end
        self._size = 0  # bytes
        self._last: OpenFile | None = None  # the next file is often in the directory that it holds open

    def open_file(self, source: str, identity: Identity, note: Callable[[int], None]) -> OpenFile:
        """Open a file like `Storage.open_file`. `note`: told the offset of each read."""
        if self.storage.has_page_cache and identity.size > WHOLE:
            return _CachedByKernel(self.storage.open_file(source, identity), note)
        return _InBlocks(self, source, identity, note)

    def block(self, key: _Key) -> memoryview:
        """Return a block of a file. It raises the same errors as `OpenFile.read_into`."""
        with self._turns.at(key):
            with self._lock:
                found = self._blocks.get(key)
                if found is not None:
                    self._blocks.move_to_end(key)
                    return found
            source, identity, number = key
            block = memoryview(bytearray(min(_BLOCK, identity.size - number * _BLOCK)))
            file = self.storage.open_file(source, identity)
            file.read_into([block], number * _BLOCK)
            with self._lock:
                self._last = file
                self._blocks[key] = block
                self._size += len(block)
                while self._size > _KEPT:
                    self._size -= len(self._blocks.popitem(last=False)[1])
        return block

    def let_go(self) -> None:
        """Free the blocks, and close the file that is still open."""
        with self._lock:
            self._last, self._size = None, 0
            self._blocks.clear()


class _CachedByKernel:
    """An open file whose bytes the kernel keeps for the next reader."""

    __slots__ = ("_file", "_note")

    def __init__(self, file: OpenFile, note: Callable[[int], None]) -> None:
        self._file = file
        self._note = note

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        self._note(offset)
        self._file.read_into(views, offset)

    def descriptor(self) -> int | None:
        return self._file.descriptor()


class _InBlocks:
    """An open file that is read in blocks."""

    __slots__ = ("_files", "_identity", "_note", "_source")

    def __init__(self, files: SharedFiles, source: str, identity: Identity, note: Callable[[int], None]) -> None:
        self._files = files
        self._source = source
        self._identity = identity
        self._note = note

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        self._note(offset)
        for view in views:
            filled = 0
            while filled < len(view):
                number, within = divmod(offset, _BLOCK)
                part = self._files.block((self._source, self._identity, number))[within : within + len(view) - filled]
                view[filled : filled + len(part)] = part
                filled += len(part)
                offset += len(part)

    def descriptor(self) -> None:
        return None


class Reader:
    """One archive on its way through the files. Lay it out with `file` for the content of its members."""

    def __init__(self, files: SharedFiles) -> None:
        self._files = files
        self._least: _Place | None = None  # of the reads of this step
        self._place: _Place = (False, b"", 0)
        self._archive: Piece | None = None
        self._buffers = [page_buffer(_STEP) for _ in range(2)]  # one is filled while the other one is hashed
        self._digest = hashlib.sha256()
        self._hashing: Future[None] | None = None
        self._offset = 0

    def file(self, entry: Entry) -> PinnedFile:
        """Return a file of the model."""
        if entry.identity is None:
            raise ValueError(f"{entry.path} is a directory")
        files = self._files
        return PinnedFile(_Opener(files, self, entry), files.open_files, entry.source, entry.identity)

    def note(self, place: _Place) -> None:
        """Note that the archive needs the bytes at a place. A step may read ahead for the sum of a later file: its
        first place counts."""
        least = self._least
        if least is None or place < least:
            self._least = place

    @property
    def place(self) -> _Place:
        """Return the place in the model's files that the last step needed."""
        return self._place

    def begin(self, archive: Piece) -> None:
        """Set the archive that is read."""
        self._archive = archive

    def read_on(self, threads: ThreadPoolExecutor) -> bool:
        """Read a step of the archive, and have it hashed. Return False at the end.

        Raises:
            SourceChangedError, StoreUnreadableError: while reading.
        """
        if self._archive is None:
            raise AssertionError("the archive is not laid out yet")
        part = self._buffers[0][: min(_STEP, self._archive.length - self._offset)]
        if not part:
            return False
        self._buffers.reverse()
        self._least = None
        self._archive.read_into([part], self._offset)
        self._place = self._least or self._place
        self._offset += len(part)
        self._wait()
        self._hashing = threads.submit(self._digest.update, part)
        return True

    def sha256(self) -> str:
        """Return the SHA-256 of all that was read, hexadecimal."""
        self._wait()
        return self._digest.hexdigest()

    def end(self) -> None:
        """Let the archive go. Its files refer to this reader: else all would stay, with open files, until Python
        collects cyclic garbage."""
        self._archive = None
        self._buffers.clear()
        self._files.let_go()

    def _wait(self) -> None:
        if self._hashing is not None:
            self._hashing.result()


class _Opener:
    """Opens one file for one reader, in place of the storage."""

    __slots__ = ("_files", "_key", "_reader")

    def __init__(self, files: SharedFiles, reader: Reader, entry: Entry) -> None:
        self._files = files
        self._reader = reader
        self._key = (entry.path != FIRST_PATH, os.fsencode(entry.path))

    @property
    def has_page_cache(self) -> bool:
        return self._files.storage.has_page_cache

    def open_file(self, source: str, identity: Identity) -> OpenFile:
        return self._files.open_file(source, identity, self._note)

    def _note(self, offset: int) -> None:
        self._reader.note((*self._key, offset))


def read_all(readers: Sequence[Reader], check: Callable[[], None]) -> None:
    """Read all archives to the end. `check` is called before each step, and may raise.

    Raises:
        SourceChangedError, StoreUnreadableError: while reading.
    """
    unfinished = list(readers)
    with ThreadPoolExecutor(CORES, thread_name_prefix="hash") as threads:
        while unfinished:
            check()
            least = min(unfinished, key=operator.attrgetter("place"))
            if not least.read_on(threads):
                unfinished.remove(least)
