"""The recorder: a thread that records the SHA-256s of models whose files a mount has just measured, or imported.

Their bytes are in the page cache then. If the disk damages them later, `bentofs verify` finds it. If it has damaged
them already, their CRC-32s tell, which were taken from the bytes that were imported.

The recorder works at the lowest priority while the mount serves no request, and gives way to requests after each
mebibyte.

Threading: `consider` and `note_import` may be called from any thread; all else happens in the recorder's own thread.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bentofs.store.errors import SourceChangedError, StoreError, StoreUnreadableError
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.staging.hashing import RunningDigest
from bentofs.store.storage.base import Identity, Storage
from bentofs.store.storage.pinned import OpenFiles, PinnedFile
from bentofs.store.util.aligned_buffer import page_buffer
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

_STEP = 1 << 20  # bytes read between two checks for a request
_LOOK_SECONDS = 2.0  # between two checks for measured models
_QUIET_SECONDS = 0.5  # without a request, before the recorder begins or goes on
_SAMPLE_SECONDS = 0.02
_WAIT_SECONDS = 3600.0  # after a model was opened, in which it may become measured
_KEPT = 4 << 20  # bytes of memory, over all models that may become measured
_ASKED = 500  # CRC-32s looked up at a time
_MOST_IMPORTED = 20_000  # imported models that wait, about 200 bytes each


@dataclass(eq=False)
class _Opened:
    """A model that is being read."""

    since: float  # monotonic
    model: Model
    learnt: int = -1  # the count of measured files when the model was last checked


class Recorder:
    """The recorder of one mount."""

    def __init__(self, storage: Storage, digests: Baseline) -> None:
        self._storage = storage
        self._is_cheap = storage.has_page_cache  # else it would fetch every model again
        self._digests = digests
        # No file stays open while the mount is busy: the model may be deleted then, to make room.
        self._open_files = OpenFiles()
        # A larger model is no longer in the page cache after it was read.
        self._size_limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        self._lock = threading.Lock()
        self._opened: dict[Tag, _Opened] = {}  # models that may become measured, the latest last
        self._size = 0  # bytes of memory, of all of them
        self._imported: dict[Tag, None] = {}  # models that were imported, the latest last
        self._learnt = 0  # the count of measured files
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._is_measured: Callable[[Model], bool] = lambda _model: False
        self._is_busy: Callable[[], bool] = lambda: False
        self._find: Callable[[Tag], Model] | None = None
        self._crc32s: Callable[[Sequence[Identity]], Mapping[Identity, int]] = lambda _files: {}
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    @property
    def takes_imports(self) -> bool:
        """True if it records imported models: the storage has a page cache."""
        return self._is_cheap

    def start(
        self,
        is_measured: Callable[[Model], bool],
        is_busy: Callable[[], bool],
        find: Callable[[Tag], Model],
        crc32s: Callable[[Sequence[Identity]], Mapping[Identity, int]],
    ) -> None:
        """Start the thread, if the storage has a page cache. `is_measured`: tells whether all files of a model are
        measured; `is_busy`: tells whether a request is being served; `find`: looks for a model in the store now;
        `crc32s`: returns those CRC-32s of files that are known."""
        self._is_measured = is_measured
        self._is_busy = is_busy
        self._find = find
        self._crc32s = crc32s
        if self._is_cheap:
            self._thread.start()

    def consider(self, model: Model) -> None:
        """Note a model that is being read, and may become measured by that."""
        if self._is_cheap and model.size <= self._size_limit:
            with self._lock:
                self._forget(model.tag)
                self._opened[model.tag] = _Opened(time.monotonic(), model)
                self._size += model.weight
                while self._size > _KEPT and len(self._opened) > 1:
                    self._forget(next(iter(self._opened)))
            self._wake.set()

    def note_import(self, tag: Tag) -> None:
        """Note a model that was imported without its SHA-256s."""
        if self._is_cheap:
            with self._lock:
                self._imported.pop(tag, None)
                self._imported[tag] = None
                if len(self._imported) > _MOST_IMPORTED:
                    del self._imported[next(iter(self._imported))]
            self._wake.set()

    def look_again(self) -> None:
        """Note that a file was measured, maybe the last one of a model."""
        self._learnt += 1
        if self._opened:
            self._wake.set()

    def forget(self, tag: Tag) -> None:
        """Forget a model that is no longer in the store."""
        with self._lock:
            self._forget(tag)

    def stop(self) -> None:
        """Stop the thread, within the time that a step takes."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():  # it may be starting just now
            self._thread.join(2)

    def _run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # Linux: of this thread alone
        while not self._stopping.is_set():
            self._wake.wait(_WAIT_SECONDS if self._opened else None)
            self._wake.clear()
            try:
                self._record_measured()
                self._record_imported()
            except Exception:
                log.exception("recording SHA-256s failed")
            self._stopping.wait(_LOOK_SECONDS)

    def _record_measured(self) -> None:
        with self._lock:
            opened = list(self._opened.items())
        for tag, waiting in opened:
            learnt = self._learnt
            done = False
            if waiting.learnt != learnt:
                if not self._may_go_on(begin=True):
                    return
                done = self._is_measured(waiting.model)
                waiting.learnt = learnt
            if done:
                self._record(waiting.model)
            if done or time.monotonic() - waiting.since > _WAIT_SECONDS:
                with self._lock:
                    if self._opened.get(tag) is waiting:
                        self._forget(tag)

    def _record_imported(self) -> None:
        while self._imported and self._may_go_on(begin=True):
            with self._lock:
                tag = next(iter(self._imported))
                del self._imported[tag]
            try:
                model = self._find(tag) if self._find is not None else None
            except StoreError as error:  # deleted just now, for example
                log.info("the SHA-256s of %s are not recorded: %s", tag, error)
                continue
            if model is not None and model.size <= self._size_limit:
                self._record(model)

    def _forget(self, tag: Tag) -> None:
        known = self._opened.pop(tag, None)
        if known is not None:
            self._size -= known.model.weight

    def _record(self, model: Model) -> None:
        key = (self._storage.location, model.tag, model.info.creation_time)
        try:
            if self._digests.of(*key):
                return
            found = self._sha256s(model)
        except (SourceChangedError, StoreUnreadableError) as error:
            log.info("the SHA-256s of %s are not recorded: %s", model.tag, error)
            return
        if found is None:
            return
        # An import that has replaced the model may have recorded the new one already.
        if self._digests.record(*key, found, first=True, is_there=lambda: self._is_there(model)):
            log.info("recorded the SHA-256s of %s", model.tag)

    def _is_there(self, model: Model) -> bool:
        """Tell whether the store still has this very model."""
        try:
            found = self._find(model.tag) if self._find is not None else None
        except StoreError:
            return False
        return found is not None and found.info == model.info and found.entries == model.entries

    def _sha256s(self, model: Model) -> dict[bytes, str] | None:
        """Return the SHA-256s of all files, by path. None if one of them is damaged, or if the thread must stop."""
        found: dict[bytes, str] = {}
        files = ((entry, entry.identity) for entry in model.entries if entry.identity is not None)
        while group := list(itertools.islice(files, _ASKED)):
            known = self._crc32s([identity for _, identity in group])
            for entry, identity in group:
                digests = self._read(PinnedFile(self._storage, self._open_files, entry.source, identity))
                if digests is None:
                    return None
                sha256, crc32 = digests
                if crc32 != known.get(identity, crc32):
                    log.warning(
                        "%s is damaged: its file %s has other bytes than those that were imported or measured, though "
                        "its times are the same; import it again",
                        model.tag,
                        printable(entry.path),
                    )
                    return None
                found[os.fsencode(entry.path)] = sha256
        return found

    def _read(self, file: PinnedFile) -> tuple[str, int] | None:
        """Return the SHA-256 and the CRC-32 of one file; None if the thread must stop."""
        file.open()
        digest = RunningDigest()
        buffer = page_buffer(min(_STEP, file.length))
        for offset in range(0, file.length, _STEP):
            if not self._may_go_on():
                return None
            part = buffer[: min(_STEP, file.length - offset)]
            file.read_into([part], offset)
            digest.update(part)
        return digest.result()

    def _may_go_on(self, *, begin: bool = False) -> bool:
        """Wait while requests are served; False if the thread must stop."""
        if begin or self._is_busy():
            quiet_since = time.monotonic()
            while time.monotonic() - quiet_since < _QUIET_SECONDS:
                if self._stopping.wait(_SAMPLE_SECONDS):
                    return False
                if self._is_busy():
                    quiet_since = time.monotonic()
        return not self._stopping.is_set()
