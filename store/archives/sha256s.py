"""Sha256s: the SHA-256s of a store's archives, from the index, or computed in one pass over a model's files.

Threading: any thread. One thread at a time computes those of a model; others that want them wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from bentofs.store.archives.compression import Compression, is_compressed
from bentofs.store.archives.digest import sha256_of
from bentofs.store.archives.index import Index
from bentofs.store.archives.one_pass import Reader, SharedFiles, read_all
from bentofs.store.archives.sources import OpensEntry, Sources
from bentofs.store.errors import CancelledError
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.registry import Format
from bentofs.store.model.model import Model
from bentofs.store.util.keyed_lock import KeyedLock


class Archived(Protocol):
    """The archives themselves (`store.archives.archives`)."""

    compression: Compression

    def open(self, model: Model, kind: Format) -> Piece:
        """Return an archive whose bytes are about to be read."""

    def note_reader(self, model: Model) -> None:
        """Note that some of a model's archives are about to be read."""

    def lay_out(self, model: Model, kind: Format, file: OpensEntry, parts: Collection[str]) -> Piece:
        """Return an archive of its own for a reader that opens the model's files by `file`. If it must be measured,
        measure these parts with it."""


class Sha256s:
    """The SHA-256s of one store's archives, hexadecimal."""

    def __init__(self, index: Index, sources: Sources, bytes_name: Callable[[Model, Format], str]) -> None:
        """`bytes_name`: see `store.archives.lengths.Lengths.bytes_name`."""
        self._index = index
        self._sources = sources
        self._bytes_name = bytes_name
        self._turns = KeyedLock()
        self._closing = threading.Event()

    def close(self) -> None:
        """Cancel hashing: threads that wait for it get CancelledError."""
        self._closing.set()

    def all(self, archives: Archived, model: Model, kinds: Sequence[Format]) -> list[str]:
        """Return the SHA-256 of each of these archives. Those that are not known for this generation are read whole,
        all of them in one pass over the model's files.

        Raises:
            SourceChangedError, StoreUnreadableError, CancelledError: while reading.
        """
        names = {kind: self._bytes_name(model, kind) for kind in kinds}
        with self._turns.at((model.tag, model.generation)):
            found = {kind: self._index.archive_digest(name) for kind, name in names.items()}
            unknown = [kind for kind, sha256 in found.items() if sha256 is None]
            for kind, sha256 in zip(unknown, self._read(archives, model, unknown), strict=True):
                self._index.keep_archive_digest(names[kind], sha256)
                found[kind] = sha256
        return [found[kind] or "" for kind in kinds]

    def keep(self, model: Model, kind: Format, sha256: str) -> None:
        """Keep the SHA-256 of an archive that was read whole."""
        self._index.keep_archive_digest(self._bytes_name(model, kind), sha256)

    def known(self, model: Model, kind: Format) -> str | None:
        """Return an archive's SHA-256; None if nobody has asked for it yet."""
        return self._index.archive_digest(self._bytes_name(model, kind))

    def _read(self, archives: Archived, model: Model, kinds: Sequence[Format]) -> list[str]:
        if len(kinds) == 1:
            return [sha256_of(archives.open(model, kinds[0]), lambda _count: self._check_open())]
        if kinds:
            archives.note_reader(model)
        files = SharedFiles(self._sources.storage, self._sources.open_files)
        readers = [Reader(files) for _ in kinds]
        parts = {kind.part for kind in kinds if kind.needs_checksums and is_compressed(kind, archives.compression)}
        try:
            for kind, reader in zip(kinds, readers, strict=True):
                reader.begin(archives.lay_out(model, kind, reader.file, parts))
            read_all(readers, self._check_open)
            return [reader.sha256() for reader in readers]
        finally:
            for reader in readers:
                reader.end()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise CancelledError("bentofs ends")
