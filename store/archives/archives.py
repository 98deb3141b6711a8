"""Archives: the models of a store in every format. Their sizes come first, their bytes on demand.

An archive is laid out from one generation of a model (`store.model.model.Model`). It gives that generation's bytes or
SourceChangedError, never another generation's bytes. A compressed archive's size must be measured once
(`store.archives.chunk_sizes`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Sequence

from bentofs.store.archives.chunk_sizes import NotMeasuredError, Sizes
from bentofs.store.archives.compression import Compression, is_cheap_at_once, is_compressed
from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.archives.growing import Growing
from bentofs.store.archives.index import Index
from bentofs.store.archives.later import Later
from bentofs.store.archives.lengths import ArchiveKey, Lengths
from bentofs.store.archives.measuring import Progress
from bentofs.store.archives.members import Members, unknown_files
from bentofs.store.archives.sha256s import Sha256s
from bentofs.store.archives.sources import OpensEntry, Sources
from bentofs.store.formats.pieces import Piece, PieceList, Zeros
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.deflate import SMALL
from bentofs.store.formats.write.plan import Results
from bentofs.store.formats.write.registry import Format
from bentofs.store.formats.write.segments import AT_ONCE
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Entry, Storage
from bentofs.store.storage.pinned import OpenFiles
from bentofs.store.storage.timestamps import is_settled
from bentofs.store.util.budgeted_cache import BudgetedCache
from bentofs.store.util.keyed_lock import KeyedLock
from bentofs.store.util.memory_budget import MemoryBudget

_KEPT = 3 << 20  # bytes, over all archives kept laid out for the next reader
_ARCHIVE, _MEMBER, _MEASURED_MEMBER = 4000, 1400, 1600  # bytes, about, of one such archive and of each member in it
_PLACE, _MEASURED_PLACE = 1, 60  # bytes of each member, also if it is not laid out now
_GROWS_FROM, _GROWS_TO = 16 << 20, 16 << 30  # bytes of a model whose archive may be given while it is measured


class Archives:
    """All archives of one store. Methods may be called from any thread."""

    def __init__(
        self,
        storage: Storage,
        index: Index,
        compression: Compression = Compression.NEVER,
        opened: Callable[[Model], None] = lambda _model: None,
        *,
        formats: Sequence[Format] = (),
        sizes: Sizes | None = None,
        measurements: Measurements | None = None,
        open_files: OpenFiles | None = None,
        later: Later | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        """`opened`: called with each model whose archive is about to be read. `formats`: those that are asked for.
        `later`: told of each model that was measured for one of them only; None for a command. `sizes`, `measurements`:
        None to make them from the index. `open_files`, `budget`: None to make new ones."""
        budget = budget or MemoryBudget()
        self.note_reader = opened
        self.compression = compression
        self._formats = formats
        self._parts = {kind.part for kind in formats}
        self._later = later
        self._measurements = measurements or Measurements(index, budget=budget)
        self._sources = Sources(storage, open_files or OpenFiles(), self._measurements, compression)
        self._sizes = sizes or Sizes(index, budget=budget)
        self._lengths = Lengths(index, self._sizes, compression, formats, budget)
        self._sha256s = Sha256s(index, self._sources, self._lengths.bytes_name)
        self._laid_out: BudgetedCache[ArchiveKey, PieceList] = BudgetedCache(budget, _KEPT)
        self._turns = KeyedLock()

    @property
    def revision(self) -> int:
        """The revision of sizes. It changes when an archive's reported size turned out wrong."""
        return self._sizes.revision

    @property
    def maker(self) -> ChunkMaker:
        """The maker of compressed chunks."""
        return self._sizes.maker

    def close(self) -> None:
        """Cancel compression and hashing: threads that wait for it get CancelledError."""
        self._sha256s.close()
        self._sizes.close()

    def length(self, model: Model, kind: Format) -> int:
        """Return the exact length of an archive in bytes: by arithmetic, or measured if it is compressed.

        Raises:
            SourceChangedError, StoreUnreadableError, CancelledError: while measuring.
        """
        key = self._lengths.key(model, kind)
        length = self._lengths.get(key)
        if length is None:
            if kind.length is None or is_compressed(kind, self.compression):
                length = self._lengths.kept(model, kind) or self._laid_out_now(model, kind).length
            else:
                members = Members(model.entries, lambda entry: Zeros(entry.size))
                length = kind.length(members, model.mtime)
            self._lengths.put(key, length)
        return length

    def is_length_known(self, model: Model, kind: Format) -> bool:
        """Tell whether `length` returns without measuring: by arithmetic, by the index, or because it is cached.

        Raises:
            SourceChangedError, StoreUnreadableError: this cannot be found out now.
        """
        if kind.length is not None and not is_compressed(kind, self.compression):
            return True
        key = self._lengths.key(model, kind)
        if self._lengths.get(key) is not None or self._laid_out.get(key) is not None:
            return True
        if not is_compressed(kind, self.compression):
            return False
        if self._lengths.kept(model, kind) is not None:
            return True
        try:
            self._compressed(model, kind, None, only_known=True)
        except NotMeasuredError:
            return False
        return True

    def size_is(self, model: Model, kind: Format) -> str:
        """Return where an archive's length comes from: "arithmetic", "measured", or "not measured yet". Raises the same
        errors as `is_length_known`."""
        if kind.length is not None and not is_compressed(kind, self.compression):
            return "arithmetic"
        return "measured" if self.is_length_known(model, kind) else "not measured yet"

    def open(self, model: Model, kind: Format, progress: Progress | None = None) -> Piece:
        """Return the archive of one generation of a model; its readers share it.

        Raises:
            SourceChangedError, StoreUnreadableError, CancelledError: while measuring a compressed archive.
        """
        self.note_reader(model)
        return self._laid_out_now(model, kind, progress)

    def forget(self, tag: Tag) -> None:
        """Drop the cached archives of a model that is no longer in the store."""
        self._laid_out.drop_where(lambda key: key.tag == tag)
        self._lengths.forget(tag)
        if self._later is not None:
            self._later.forget(tag)

    def _laid_out_now(self, model: Model, kind: Format, progress: Progress | None = None) -> PieceList:
        """Return the laid-out archive. It raises the same errors as `open`."""
        key = self._lengths.key(model, kind)
        kept = self._laid_out.get(key)
        if kept is not None:
            return kept
        if kind.lay_out is None or is_compressed(kind, self.compression):
            # Another thread may measure the same model, perhaps for another format.
            with self._turns.at((model.tag, model.generation)):
                pieces = self._laid_out.get(key) or self._compressed(model, kind, progress)
        else:
            pieces = kind.lay_out(self._sources.members(model, kind), model.mtime)
        count = len(model.entries)
        member, place = (_MEASURED_MEMBER, _MEASURED_PLACE) if kind.needs_checksums else (_MEMBER, _PLACE)
        weight = _ARCHIVE + min(count, AT_ONCE) * member + count * place
        return self._laid_out.put_first(key, pieces, weight)

    def measure(self, model: Model, kinds: Sequence[Format], progress: Progress) -> None:
        """Measure all that `stat` and the first reader of these archives would have to wait for.

        `progress`: told of all of a model's bytes, many at a time if they were measured before.

        Raises:
            SourceChangedError, StoreUnreadableError: while measuring.
        """
        told = 0

        def tell(count: int) -> None:
            nonlocal told
            count = min(count, model.size - told)  # headers are measured, too
            told += count
            progress(count)

        for kind in kinds:
            if is_compressed(kind, self.compression):
                with self._turns.at((model.tag, model.generation)):
                    if self._laid_out.get(self._lengths.key(model, kind)) is None:
                        self._compressed(model, kind, tell, at_once=True)
        if any(kind.needs_checksums for kind in kinds):
            for entry in unknown_files(model.entries, self._measurements):
                self._measurements.crc32(self._sources.file(entry))
                tell(entry.size)
        tell(model.size - told)

    def measure_rest(self, model: Model, pace: Callable[[], None]) -> None:
        """Measure a model for all formats of which a `stat` is likely. Call `pace` often.

        Raises:
            SourceChangedError, StoreUnreadableError, CancelledError: while measuring.
        """
        for kind in self._formats:
            if kind.needs_checksums and is_compressed(kind, self.compression):
                with self._turns.at((model.tag, model.generation)):
                    if self._lengths.get(self._lengths.key(model, kind)) is None:
                        self._compressed(model, kind, lambda _count: pace(), has_reader=False)

    def is_awaited(self, model: Model) -> bool:
        """Tell whether another thread waits until a model is measured."""
        return self._turns.is_awaited((model.tag, model.generation))

    def _compressed(
        self,
        model: Model,
        kind: Format,
        progress: Progress | None,
        *,
        file: OpensEntry | None = None,
        at_once: bool = False,
        only_known: bool = False,
        has_reader: bool = True,
        read_with: Collection[str] = (),
    ) -> PieceList:
        """Lay out a compressed archive. `file`: opens the model's files. `at_once`: also measure for the other formats.
        `read_with`: parts of archives that are read at the same time; measure them, too. `only_known`: raise
        NotMeasuredError instead of measuring. `has_reader`: False if no reader is about to come."""
        if kind.compress is None:
            raise ValueError(f"{kind.name} has no compressed form")
        plan, subject = self._sources.plan(model, kind, file)
        measure = functools.partial(
            self._sizes.measure,
            plan,
            subject,
            forced=self.compression is Compression.ALWAYS,
            progress=progress,
            has_reader=has_reader,
        )
        started_ns = time.time_ns()
        try:
            results = measure(only_known=True)
        except NotMeasuredError:
            if only_known:
                raise
            at_once = at_once or is_cheap_at_once(model.entries.sizes)
            also = self._parts if at_once and not read_with else read_with
            results = measure(also=also, all_have_readers=bool(read_with))
            if not also and has_reader and self._later is not None:
                self._later.note(model)
        pieces = kind.compress(plan, results, self.maker)
        self._lengths.keep(model, kind, pieces.length, is_kept=is_settled(model.newest_ctime_ns, started_ns))
        return pieces

    def grow(self, model: Model, kind: Format) -> Growing | None:
        """Return an archive that is given while it is measured. None if `open` is better: its length is known, or
        hardly anything in it is compressed.

        Raises:
            SourceChangedError, StoreUnreadableError, CancelledError: while taking samples.
        """
        compress = kind.compress
        is_fit = self.compression is Compression.AUTO and _GROWS_FROM <= model.size <= _GROWS_TO
        if kind.steps is None or compress is None or not is_fit or self.is_length_known(model, kind):
            return None
        self.note_reader(model)
        started_ns = time.time_ns()
        plan, subject = self._sources.plan(model, kind)
        known = self._sizes.judge(plan, subject)
        if (known.compressible + sum(size for size in model.entries.sizes if size < SMALL)) * 2 < model.size:
            return None

        def keep(results: Results, archive: PieceList) -> None:
            self._sizes.keep_grown(known, results, subject, started_ns)
            is_kept = is_settled(model.newest_ctime_ns, started_ns)
            self._lengths.keep(model, kind, archive.length, is_kept=is_kept)

        return Growing(plan, known, kind.steps, compress, self.maker, keep)

    def open_file(self, entry: Entry) -> Piece:
        """Open one file of a model.

        Raises:
            SourceChangedError: the file has changed since the model was read.
            StoreUnreadableError: it may not be read.
        """
        file = self._sources.file(entry)
        file.open()
        return file

    def is_measured(self, model: Model) -> bool:
        """Tell whether the CRC-32 of each of a model's files is known."""
        return next(unknown_files(model.entries, self._measurements), None) is None

    def sha256(self, model: Model, kind: Format) -> str:
        """Return an archive's SHA-256, hexadecimal. Read the whole archive unless it is known for this generation."""
        return self.sha256s(model, [kind])[0]

    def sha256s(self, model: Model, kinds: Sequence[Format]) -> list[str]:
        """Return the SHA-256 of each of these archives (`store.archives.sha256s.Sha256s.all`)."""
        return self._sha256s.all(self, model, kinds)

    def keep_sha256(self, model: Model, kind: Format, sha256: str) -> None:
        """Keep the SHA-256 of an archive that was read whole."""
        self._sha256s.keep(model, kind, sha256)

    def known_sha256(self, model: Model, kind: Format) -> str | None:
        """Return an archive's SHA-256, hexadecimal; None if nobody has asked for it yet."""
        return self._sha256s.known(model, kind)

    def lay_out(self, model: Model, kind: Format, file: OpensEntry, parts: Collection[str]) -> PieceList:
        """Do what `store.archives.sha256s.Archived.lay_out` does. It raises the same errors as `open`."""
        if kind.lay_out is None or is_compressed(kind, self.compression):
            with self._turns.at((model.tag, model.generation)):
                return self._compressed(model, kind, None, file=file, read_with=parts)
        return kind.lay_out(self._sources.members(model, kind, file), model.mtime)

    def bytes_name(self, model: Model, kind: Format) -> str:
        """Return a text that is the same only for the same bytes of an archive, in all processes."""
        return self._lengths.bytes_name(model, kind)
