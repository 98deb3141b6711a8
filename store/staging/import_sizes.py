"""Measuring a model while it is imported, so that its compressed archives are ready as soon as it is visible.

Each large file is sampled as soon as it is written, and compressed if that is worth it, while the next ones are being
written. Small files follow at the end. The sizes are kept once the model is in the store: the rename into the store
does not change its files' identities.

Only those sizes are measured for which `stat` would wait with `--compression auto`, which limits them
(`store.archives.compression`).

Threading: one thread stages a model and calls all methods, but any thread may call `file`; files are measured in a
separate thread.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.chunk_sizes import Sizes
from bentofs.store.archives.compression import MAX_FILE, MAX_MODEL, Compression, is_compressed
from bentofs.store.archives.crc32_cache import MeasuredFile, Measurements
from bentofs.store.archives.index import ChunkSizes, Index, SizesRow
from bentofs.store.errors import CancelledError, StoreError
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.deflate import SMALL
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.model import Model
from bentofs.store.staging.file import StagedFile
from bentofs.store.staging.model import Staged
from bentofs.store.storage.base import Identity
from bentofs.store.storage.entries import Entries
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.pinned import OpenFiles, PinnedFile
from bentofs.store.storage.timestamps import is_settled
from bentofs.store.util.threads import started

log = logging.getLogger(__name__)


class StagedSizes:
    """The sizes of one model that is being staged."""

    def __init__(self, index: Index, maker: ChunkMaker, kinds: Sequence[Format], path: str) -> None:
        """`maker`: the maker of the archives' chunks; `kinds`: the formats to measure for; `path`: the directory in
        which the model is staged."""
        self._index = index
        self._kinds = kinds
        self._path = path
        self._kept = _Kept()
        self._sizes = Sizes(self._kept, maker, lambda _stamp_ns, _looked_at_ns: True, has_reader=False)
        self._measurements = Measurements(index)
        self._storage = LocalStorage(path)
        self._open_files = OpenFiles()
        self._room = MAX_MODEL  # bytes that may still be compressed before all files are known
        self._written: queue.SimpleQueue[tuple[str, Identity] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = False
        self._newest_ns: int | None = None  # ctime of a file, once all is measured

    def file(self, path: str, file: StagedFile) -> None:
        """Measure a file that is written, at this path below the directory."""
        if self._given_up or not SMALL <= file.size <= min(MAX_FILE, self._room):
            return
        self._room -= file.size
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="measure-staged", daemon=True)
            if not started(thread):  # `finish` measures the file
                return
            self._thread = thread
        self._written.put((path, file.identity))

    def finish(self, staged: Staged) -> None:
        """Wait until all files are measured; call it when all are written. After a failure, the model is measured when
        it is first used in the store."""
        if self._thread is not None:
            self._written.put(None)
            self._thread.join()
        try:
            if not self._given_up and staged.files:  # else there are too many files: laying them out takes too long
                self._measure(staged)
        except StoreError as error:
            log.info("%s is not measured while it is imported: %s", staged.info.tag, error)
        except Exception:
            log.exception("%s could not be measured while it was imported", staged.info.tag)
        finally:
            self._open_files.let_go()  # many models may come in a second

    def give_up(self) -> None:
        """Stop measuring: the model is in the store already, or was refused."""
        self._given_up = True
        self._written.put(None)

    def keep(self) -> bool:
        """Write the sizes to the index; call it when the model is in the store. Do not write them if files are so young
        that a change might not show in their identity.

        Returns:
            True if all sizes that the model's archives need are in the index.
        """
        if self._newest_ns is None or not is_settled(self._newest_ns, time.time_ns()):
            return False
        self._index.keep_chunk_sizes((*key, sizes) for key, sizes in self._kept.rows.items())
        return True

    def _work(self) -> None:
        while (written := self._written.get()) is not None and not self._given_up:
            path, identity = written
            file = PinnedFile(self._storage, self._open_files, path, identity)
            try:
                self._sizes.of_files([MeasuredFile(self._measurements, file, learns=False)], forced=False)
            except CancelledError:
                return
            except StoreError as error:  # changed since, by a later member of the archive
                log.info("a file is not measured while its model is imported: %s", error)
            except Exception:
                log.exception("a file could not be measured while its model was imported")

    def _measure(self, staged: Staged) -> None:
        folder, name = os.path.split(staged.path)
        storage = LocalStorage(folder)
        found, newest_ns = storage.walk(name)
        files = staged.files
        entries = [
            entry._replace(crc32=files[entry.path].crc32)
            if entry.path in files and files[entry.path].identity == entry.identity
            else entry
            for entry in found
        ]
        model = Model(staged.info, Entries.of(entries), newest_ns)
        archives = Archives(
            storage,
            self._index,
            Compression.AUTO,
            formats=self._kinds,
            sizes=self._sizes,
            measurements=self._measurements,
            open_files=self._open_files,
        )
        archives.measure(model, self._kinds, lambda _count: None)
        self._newest_ns = max(entry.identity.ctime_ns for entry in model.entries if entry.identity is not None)


class _Kept:
    """Sizes that are not in the index yet."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], ChunkSizes] = {}

    def chunk_sizes(self, content: str, codec: str) -> ChunkSizes | None:
        return self.rows.get((content, codec))

    def keep_chunk_sizes(self, rows: Iterable[SizesRow]) -> None:
        self.rows |= {(content, codec): sizes for content, codec, sizes in rows}

    def forget_chunk_sizes(self, content: str, codec: str) -> None:
        self.rows.pop((content, codec), None)

    def forget_archive_lengths(self) -> None:
        """Do nothing: none are kept here."""


def staged_sizes(index: Index, archives: Archives, formats: Sequence[Format]) -> Callable[[str], StagedSizes] | None:
    """Return a function from a staging directory to its `StagedSizes`, for these archives; None if nothing is to be
    measured.

    Nothing is measured with `--compression always`, which compresses for minutes: imports do not wait for that.
    """
    kinds = [kind for kind in formats if kind.needs_checksums and is_compressed(kind, archives.compression)]
    if archives.compression is not Compression.AUTO or not kinds:
        return None
    return lambda path: StagedSizes(index, archives.maker, kinds, path)
