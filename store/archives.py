"""Archives: the models of a store in every format: their sizes at once, their bytes on demand.

An archive is laid out from one generation of a model (`store.model.Model`) and gives that generation's bytes or
SourceChangedError, never another's.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from cachetools import LRUCache

from store.archive.formats import LAYOUT_VERSION, Format
from store.archive.members import Member
from store.archive.pieces import Piece, PieceList, Zeros
from store.index import Index
from store.measure import MeasuredFile, Measurements
from store.model import Model
from store.storage.base import Entry, Storage
from store.storage.pinned import OpenFiles, PinnedFile

_MEMBERS_KEPT = 50_000  # members, over all archives kept laid out for the next reader
_READ = 1 << 20  # bytes at a time when a whole archive is digested


class Archives:
    """All archives of one store. Methods may be called from any thread."""

    def __init__(self, storage: Storage, index: Index, opened: Callable[[Model], None] = lambda _model: None) -> None:
        """`opened` is told of each model whose archive is about to be read."""
        self._opened = opened
        self._storage = storage
        self._index = index
        self._open_files = OpenFiles()
        self._measurements = Measurements(index)
        self._lock = threading.Lock()  # never held while reading or laying out
        self._lengths: WeakKeyDictionary[Model, dict[str, int]] = WeakKeyDictionary()
        self._laid_out: LRUCache[tuple[Model, str], tuple[PieceList, int]] = LRUCache(
            _MEMBERS_KEPT, getsizeof=lambda kept: kept[1]
        )
        self._digesting: dict[tuple[Model, str], threading.Lock] = {}

    def length(self, model: Model, kind: Format) -> int:
        """The exact length of an archive in bytes, by arithmetic."""
        with self._lock:
            lengths = self._lengths.setdefault(model, {})
        length = lengths.get(kind.name)
        if length is None:
            members = _members(model, lambda entry: Zeros(entry.size))
            length = lengths[kind.name] = kind.length(members, model.mtime)
        return length

    def open(self, model: Model, kind: Format) -> Piece:
        """The archive of one generation of a model; readers of the same one share it."""
        self._opened(model)
        key = (model, kind.name)
        with self._lock:
            kept = self._laid_out.get(key)
        if kept is None:
            pieces = kind.lay_out(_members(model, self._measured if kind.needs_checksums else self._file), model.mtime)
            weight = min(len(model.entries) + 1, _MEMBERS_KEPT)
            with self._lock:
                kept = self._laid_out.setdefault(key, (pieces, weight))
        return kept[0]

    def open_file(self, entry: Entry) -> Piece:
        """One file of a model.

        Raises:
            SourceChangedError: it is no longer what the model was when it was looked at.
            StoreUnreadableError: it may not be read.
        """
        if entry.identity is None:
            raise ValueError(f"{entry.path} is a folder")
        file = self._file(entry)
        file.open()
        return file

    def is_measured(self, model: Model) -> bool:
        """Whether the CRC-32 of each of a model's files is known."""
        known = self._measurements.known_crc32
        return all(known(entry.identity) is not None for entry in model.entries if entry.identity and entry.size)

    def sha256(self, model: Model, kind: Format) -> str:
        """The SHA-256 of an archive, hexadecimal. Reads all of it unless it is known for this generation."""
        name = f"{model.fingerprint()}/{kind.name}/{LAYOUT_VERSION}"
        with self._lock:
            turn = self._digesting.setdefault((model, kind.name), threading.Lock())
        try:
            with turn:
                known = self._index.archive_digest(name)
                if known is None:
                    known = sha256_of(self.open(model, kind))
                    self._index.keep_archive_digest(name, known)
        finally:
            with self._lock:
                self._digesting.pop((model, kind.name), None)
        return known

    def _file(self, entry: Entry) -> PinnedFile:
        if entry.identity is None:
            raise ValueError(f"{entry.path} is a folder")
        return PinnedFile(self._storage, self._open_files, entry.source, entry.identity)

    def _measured(self, entry: Entry) -> MeasuredFile:
        return MeasuredFile(self._measurements, self._file(entry))


def sha256_of(piece: Piece) -> str:
    """The SHA-256 of all of a piece, hexadecimal."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_READ, piece.length)))
    offset = 0
    while offset < piece.length:
        part = buffer[: min(len(buffer), piece.length - offset)]
        piece.read_into([part], offset)
        digest.update(part)
        offset += len(part)
    return digest.hexdigest()


def _members(model: Model, content: Callable[[Entry], Piece]) -> list[Member]:
    return [
        Member(entry.path, entry.is_folder, entry.executable, content(entry) if entry.size else None)
        for entry in model.entries
    ]
