"""Fetching: the source of an import is read from any place, and given to an `Importer`.

Threading: a `Fetcher` may be used from any thread, for any number of imports at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from bentofs.store.errors import (
    BadLocationError,
    CancelledError,
    DamagedArchiveError,
    NotAModelError,
    RemoteDeniedError,
    SourceChangedError,
    StoreError,
    StoreUnreadableError,
)
from bentofs.store.formats.read.detect import ArchiveKind, kind_of
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.formats.write.registry import FOLDER
from bentofs.store.integrity.sha256sums import MAX_SUMS, NO_SUMS, SUFFIX, read_sums_beside
from bentofs.store.location import Location
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Outcome
from bentofs.store.staging.session import Session
from bentofs.store.transfer.byte_counter import Counted
from bentofs.store.transfer.endpoints.base import Progress, Source
from bentofs.store.transfer.endpoints.pool import Endpoints
from bentofs.store.transfer.exporter import format_named
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import Importer, StagedImport
from bentofs.store.transfer.receipt import ReceiptState
from bentofs.store.transfer.source_descriptor import WatchedFile, chunks_of, position_of, reading
from bentofs.store.transfer.source_folder import fill_from, fill_from_disk
from bentofs.store.transfer.stream_buffer import StreamedFile
from bentofs.store.util.cancel import CancelTokens
from bentofs.store.util.display import printable

_HEAD = 512  # bytes that tell the kind of an archive
# The kinds that an archive of a given format may have. Not all old .bentomodels were compressed.
_KINDS = {
    "bentomodel": (ArchiveKind.XZ, ArchiveKind.GZIP, ArchiveKind.TAR),
    "tar": (ArchiveKind.TAR,),
    "tar.gz": (ArchiveKind.GZIP,),
    "tar.xz": (ArchiveKind.XZ,),
    "tar.bz2": (ArchiveKind.BZIP2,),
    "zip": (ArchiveKind.ZIP,),
}


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    tag: Tag
    outcome: Outcome
    size: int  # bytes read
    sha256: str | None  # of an archive, hexadecimal
    left_out: str | None = None  # a sentence on files that came with the model but are no part of it


class Fetcher:
    """Imports into one store."""

    def __init__(
        self, importer: Importer, session: Session, receipts: ImportLog, max_members: int, stops: CancelTokens = ()
    ) -> None:
        """`stops`: once one is set, running imports end soon."""
        self._importer = importer
        self._receipts = receipts
        self._stops = stops
        self._session = session
        self._max_members = max_members
        self._endpoints = Endpoints()

    def close(self) -> None:
        """Close the connections that are kept for further imports."""
        self._endpoints.close()

    def fetch(
        self, location: Location, progress: Progress, format_name: str | None = None, expect: Progress | None = None
    ) -> Imported:
        """Import the model at a location. Its bytes tell its kind; with `format_name`, other kinds are refused.
        `expect` is told the size of an archive, where it is known.

        Raises:
            StoreError: the reason why it is not in the store.
        """
        kinds = _kinds(format_name)
        counted = Counted(progress, self._stops, expect)
        return self._recorded(location.shown, lambda: self._stage_from(location, kinds, format_name, counted), counted)

    def _stage_from(
        self, location: Location, kinds: tuple[ArchiveKind, ...] | None, format_name: str | None, counted: Counted
    ) -> StagedImport:
        if location.is_local:
            if kinds is None or (format_name is None and os.path.isdir(location.path)):
                return self._importer.stage_members(lambda target: fill_from_disk(location.path, target, counted))
            return self._fetch_file(location, kinds, counted)
        with self._endpoints.endpoint(location, self._stops) as source:
            if kinds is None or (format_name is None and location.is_folder):
                return self._importer.stage_members(
                    lambda target: fill_from(source, location, target, counted, self._max_members)
                )
            return self._fetch_object(source, location, kinds, counted)

    def fetch_stream(self, descriptor: int, name: str, progress: Progress, format_name: str | None = None) -> Imported:
        """Import the archive that comes from a descriptor, such as standard input. `name`: the descriptor's, for
        errors."""
        kinds = _kinds(format_name)
        if kinds is None:
            raise BadLocationError(f"{name} cannot hold a directory")
        counted = Counted(progress, self._stops)
        return self._recorded(name, lambda: self._stage_descriptor(descriptor, name, kinds, counted), counted)

    def _recorded(self, shown: str, stage: Callable[[], StagedImport], counted: Counted) -> Imported:
        """Stage and publish a model, with a receipt."""
        receipt = self._receipts.begin(self._session.name, shown, os.getuid())
        try:
            ready = stage()
            self._receipts.importing(receipt, counted.total)
            try:
                outcome = self._importer.publish(ready)
            except BaseException:
                ready.discard()
                raise
        except BaseException as error:
            is_refused = isinstance(error, StoreError) and not isinstance(error, CancelledError)
            state = ReceiptState.REFUSED if is_refused else ReceiptState.INTERRUPTED
            self._receipts.finish(receipt, state, error=str(error) or "interrupted")
            raise
        sha256 = ready.sha256() if ready.sha256 is not None else None
        self._receipts.finish(
            receipt,
            ReceiptState(outcome.value),
            size=counted.total,
            tag=str(ready.tag),
            creation_time=ready.staged.info.creation_time.isoformat(),
            sha256=sha256,
            note=ready.staged.left_out,
        )
        return Imported(ready.tag, outcome, counted.total, sha256, ready.staged.left_out)

    def _fetch_file(self, location: Location, kinds: tuple[ArchiveKind, ...], counted: Counted) -> StagedImport:
        path = location.path
        with reading(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            ready = self._stage_descriptor(descriptor, path, kinds, counted)
        finally:
            os.close(descriptor)
        try:
            with open(path + SUFFIX, "rb") as file:
                sums = file.read(MAX_SUMS)
        except OSError as error:
            if error.errno in NO_SUMS:
                return ready
            ready.discard()
            raise StoreUnreadableError(
                f"{printable(path + SUFFIX)} cannot be read, so no checksum was compared: {error.strerror}"
            ) from None
        return _checked(ready, sums, location)

    def _stage_descriptor(
        self, descriptor: int, name: str, kinds: tuple[ArchiveKind, ...], counted: Counted
    ) -> StagedImport:
        with reading(name):
            before = os.fstat(descriptor)
        if stat.S_ISREG(before.st_mode) and position_of(descriptor) == 0:
            counted.expect(before.st_size)
            ready = self._stage(WatchedFile(descriptor, name, counted), kinds, name)
            after = os.fstat(descriptor)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                ready.discard()
                raise SourceChangedError(f"{printable(name)} was changed while it was read: import it again")
            return ready
        return self._stage_streamed(
            StreamedFile(
                chunks_of(descriptor, name, self._stops),
                None,
                read_at=None,
                spool=self._session.spool,
                progress=counted,
            ),
            kinds,
            name,
        )

    def _fetch_object(
        self, source: Source, location: Location, kinds: tuple[ArchiveKind, ...], counted: Counted
    ) -> StagedImport:
        path = location.path
        known = source.look(path)
        counted.expect(known.size)
        arriving = StreamedFile(
            source.chunks(path, known),
            known.size,
            read_at=(lambda offset, size: source.read_at(path, known, offset, size)) if source.can_seek else None,
            spool=self._session.spool,
            progress=counted,
        )
        ready = self._stage_streamed(arriving, kinds, location.shown)
        try:
            sums = source.read_small(path + SUFFIX, MAX_SUMS)
        except RemoteDeniedError:  # S3 gives this for a missing object to users who may not list
            sums = None
        except BaseException:
            ready.discard()
            raise
        return _checked(ready, sums, location) if sums is not None else ready

    def _stage_streamed(self, arriving: StreamedFile, kinds: tuple[ArchiveKind, ...], name: str) -> StagedImport:
        try:
            return self._stage(arriving, kinds, name)
        finally:
            arriving.close()

    def _stage(self, arriving: ArrivingFile, kinds: tuple[ArchiveKind, ...], name: str) -> StagedImport:
        head = memoryview(bytearray(_HEAD))
        count = 0
        while count < _HEAD and (more := arriving.read_into(head[count:], count)):
            count += more
        kind = kind_of(bytes(head[:count]))
        if kinds and kind not in kinds:
            wanted = " or ".join(kind.value for kind in kinds)
            raise NotAModelError(f"{printable(name)} is not in the requested format: {kind.value}, not {wanted}")
        return self._importer.stage(arriving)


def _kinds(format_name: str | None) -> tuple[ArchiveKind, ...] | None:
    """Return the kinds of archives that are taken. An empty tuple means all, None a directory."""
    if format_name is None:
        return ()
    if format_name == FOLDER:
        return None
    kind = format_named(format_name)
    return None if kind is None else _KINDS[kind.name]


def _checked(ready: StagedImport, sums: bytes, location: Location) -> StagedImport:
    """Compare a staged import with the file of checksums beside its source."""
    name = location.name
    try:
        stated = read_sums_beside(sums, name)
        if stated and (ready.sha256 is None or ready.sha256() not in stated):
            raise DamagedArchiveError(
                f"{location.shown} has another SHA-256 than {printable(name + SUFFIX)} beside it says"
            )
    except BaseException:
        ready.discard()
        raise
    return ready
