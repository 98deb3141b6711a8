"""Sources: the files of models as members of archives, and the plans of compressed ones. No content is read here.

Threading: any thread.
"""

from __future__ import annotations

from collections.abc import Callable

from bentofs.store.archives.chunk_sizes import ModelKey
from bentofs.store.archives.compression import Compression, packings
from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.archives.members import MeasuredMembers, Members
from bentofs.store.formats.write.plan import Plan
from bentofs.store.formats.write.registry import LAYOUT_VERSION, Format
from bentofs.store.model.model import Model
from bentofs.store.storage.base import Entry, Storage
from bentofs.store.storage.pinned import OpenFiles, PinnedFile

OpensEntry = Callable[[Entry], PinnedFile]  # returns the content of a model's file


class Sources:
    """The sources of one store's archives."""

    def __init__(
        self, storage: Storage, open_files: OpenFiles, measurements: Measurements, compression: Compression
    ) -> None:
        self.storage = storage
        self.open_files = open_files
        self.measurements = measurements
        self._compression = compression

    def file(self, entry: Entry) -> PinnedFile:
        """Return the content of a model's file."""
        if entry.identity is None:
            raise ValueError(f"{entry.path} is a directory")
        return PinnedFile(self.storage, self.open_files, entry.source, entry.identity)

    def members(self, model: Model, kind: Format, file: OpensEntry | None = None) -> Members:
        """Return the members of an archive. `file`: opens the model's files; None for `Sources.file`."""
        file = file or self.file
        if kind.needs_checksums:
            return MeasuredMembers(model.entries, file, self.storage.read_whole, self.measurements)
        return Members(model.entries, file, self.storage.read_whole)

    def plan(self, model: Model, kind: Format, file: OpensEntry | None = None) -> tuple[Plan, ModelKey]:
        """Return the plan of a compressed archive, and the key of its measurements. `file`: same as for `members`."""
        if kind.plan is None:
            raise ValueError(f"{kind.name} has no compressed form")
        # Without checksums, the tar is compressed as a whole.
        how_packed = packings(model.entries.sizes, self._compression) if kind.needs_checksums else ()
        plan = kind.plan(self.members(model, kind, file), model.mtime, how_packed)
        # The layout and the compression decide the content of a part.
        how = f"{self._compression.value}/{LAYOUT_VERSION}"
        return plan, ModelKey(model.fingerprint(), how, model.newest_ctime_ns, str(model.tag))
