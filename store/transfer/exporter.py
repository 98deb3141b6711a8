"""Exporting: write a model as an archive or a directory to a path, a URL or an open file. No temporary file is made.

Threading: an `Exporter` may be used from any thread, for any number of exports at once.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.digest import Hashed
from bentofs.store.archives.growing import Growing
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import BadLocationError
from bentofs.store.formats.gap import CannotGrowError
from bentofs.store.formats.pieces import Literal, Piece
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.registry import BENTOMODEL, FOLDER, FORMATS, Format
from bentofs.store.integrity.sha256sums import SUFFIX, write_sums
from bentofs.store.location import Location
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.transfer.endpoints.base import GrowingTarget, Progress, Target, no_progress
from bentofs.store.transfer.endpoints.local import write_out
from bentofs.store.transfer.endpoints.pool import Endpoints, takes_growing
from bentofs.store.transfer.endpoints.special import is_special
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped

log = logging.getLogger(__name__)

_AHEAD = 48 << 20  # bytes that wait to be hashed: three parts of an upload to S3 are sent beside the first one

# BentoML's names of formats, and other names that people write.
_ALIASES = {"gz": "tar.gz", "tgz": "tar.gz", "xz": "tar.xz", "txz": "tar.xz", "bz2": "tar.bz2", "tbz2": "tar.bz2"}


def known_formats() -> list[str]:
    """Return the names that `format_named` takes, for users."""
    return [*FORMATS, *_ALIASES, FOLDER]


def format_named(name: str) -> Format | None:
    """Return the format that has this name in BentoML or here. None for a directory.

    Raises:
        BadLocationError: no format has this name.
    """
    if name == FOLDER:
        return None
    kind = FORMATS.get(_ALIASES.get(name, name))
    if kind is None:
        raise BadLocationError(f"{name!r} is not a known format: choose from {', '.join(known_formats())}")
    return kind


def format_of(path: str) -> Format:
    """Return the format that a path's extension names. Any other is .bentomodel, as in BentoML."""
    extension = os.path.splitext(path)[1][1:]
    return FORMATS.get(_ALIASES.get(extension, extension), BENTOMODEL)


@dataclass(frozen=True)
class Export:
    """An export that is planned: the model and its target."""

    tag: Tag
    format: Format | None  # None for a directory
    location: Location

    @property
    def suffix_for_bentoml(self) -> str | None:
        """Return the extension that BentoML needs to open the archive. None if it opens it under this name: it goes by
        the name, and takes an unknown one for a .bentomodel."""
        if self.format is None or _is_special(self.location):
            return None
        extension = os.path.splitext(self.location.path)[1]
        return None if extension[1:] == self.format.suffix.rpartition(".")[2] else self.format.suffix


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    tag: Tag
    url: str  # without credentials; on this machine a path
    size: int  # bytes
    sha256: str | None  # of an archive, hexadecimal, if it was requested


class Exporter:
    """Exports from one store."""

    def __init__(self, store: ModelStore, archives: Archives) -> None:
        self._store = store
        self._archives = archives
        self._endpoints = Endpoints()

    def plan(self, tag: Tag, target: Location, format_name: str | None = None) -> Export:
        """Plan the export of a model to a target, by BentoML's rules. The model is not read.

        Raises:
            BadLocationError: the format is not known, or does not go with the archives' compression.
        """
        kind = format_named(format_name) if format_name is not None else format_of(target.path)
        if kind is None:
            if _is_special(target):
                raise BadLocationError(f"{target.shown} cannot hold a directory")
            # An existing directory gets a new directory in it. A missing one becomes the model.
            is_there = target.is_local and os.path.isdir(target.path)
            return Export(tag, None, target.below(tag.stem) if is_there else target)
        if kind.lay_out is None and self._archives.compression is Compression.NEVER:
            raise BadLocationError(f"{kind.name} cannot be made without compression: use --compression auto")
        if target.is_folder:
            target = target.below(tag.stem + kind.suffix)
        elif kind is BENTOMODEL and not target.path.endswith(kind.suffix) and not _is_special(target):
            target = target.at(target.path + kind.suffix)
        return Export(tag, kind, target)

    def close(self) -> None:
        """Close the connections that are kept for further exports."""
        self._endpoints.close()

    def give_up(self) -> None:
        """Stop measuring. Every call that waits for a measurement gets CancelledError, now and later."""
        self._archives.close()

    def run(
        self,
        export: Export,
        progress: Progress,
        *,
        sha256: bool = False,
        stops: CancelTokens = (),
        expect: Progress | None = None,
    ) -> Exported:
        """Export the current model. When this returns, the target has all of it. The export ends soon once one of
        `stops` is set. `expect` is told the number of bytes. It must be measured for compressed archives, which takes a
        while.

        Raises:
            StoreError: the reason. Nothing of it stands under the target's name.
        """
        model, location = self._store.model(export.tag, max_age=0), export.location
        if sha256 and _is_special(location):
            raise BadLocationError(f"{location.shown} cannot have a {SUFFIX} beside it: leave out --sha256")
        expect = expect or no_progress
        archive: Piece | None = None
        growing: Growing | None = None
        if export.format is not None:
            growing = self._archives.grow(model, export.format) if takes_growing(location) and not sha256 else None
            archive = self._archives.open(model, export.format) if growing is None else None
        expect(model.size if archive is None else archive.length)

        def advance(count: int) -> None:
            refuse_if_stopped(stops)
            progress(count)

        with self._endpoints.target(location, stops) as target:
            if export.format is None:
                target.write_folder(location.path, self._members(model), advance)
                return Exported(export.tag, location.url, model.size, None)
            if growing is not None and isinstance(target, GrowingTarget):
                archive = _write_growing(target, location.path, growing, advance)
                if archive is not None:
                    expect(archive.length)
                    return Exported(export.tag, location.url, archive.length, None)
            if archive is None:
                archive = self._archives.open(model, export.format)
                expect(archive.length)
            digest = None
            if not sha256:
                target.write(location.path, archive, advance)
            else:
                digest = self._write_hashed(target, location.path, model, export.format, archive, advance)
                target.write(location.path + SUFFIX, Literal(write_sums(digest, location.name)), no_progress)
        return Exported(export.tag, location.url, archive.length, digest)

    def write_out(
        self, tag: Tag, kind: Format, descriptor: int, name: str, progress: Progress, expect: Progress
    ) -> Exported:
        """Write a model's archive to a descriptor, such as standard output. `name`: the descriptor's, for errors;
        `expect`: same as in `run`."""
        archive: Piece = self._archives.open(self._store.model(tag, max_age=0), kind)
        expect(archive.length)
        write_out(descriptor, name, archive, progress)
        return Exported(tag, name, archive.length, None)

    def _write_hashed(
        self, target: Target, path: str, model: Model, kind: Format, archive: Piece, progress: Progress
    ) -> str:
        """Write an archive and return its SHA-256, hexadecimal. The model is read once for both."""
        known = self._archives.known_sha256(model, kind)
        if known is not None:
            target.write(path, archive, progress)
            return known
        hashed = Hashed(archive, 0 if self._store.storage.has_page_cache else _AHEAD)
        target.write(path, hashed, progress)
        sha256 = hashed.sha256()
        self._archives.keep_sha256(model, kind, sha256)
        return sha256

    def _members(self, model: Model) -> list[Member]:
        return [
            Member(
                entry.path,
                entry.is_folder,
                entry.executable,
                self._archives.open_file(entry) if entry.size else None,
            )
            for entry in model.entries
        ]


def _write_growing(target: GrowingTarget, path: str, growing: Growing, progress: Progress) -> Piece | None:
    """Write an archive while it is measured, and return it. None if it must be measured first."""
    sent = 0

    def advance(count: int) -> None:
        nonlocal sent
        sent += count
        progress(count)

    try:
        target.write_growing(path, growing, advance)
    except CannotGrowError as error:
        log.info("%s", error)
        progress(-sent)
        return None
    return growing.archive


def _is_special(target: Location) -> bool:
    """True for a device or a pipe of this machine, or for a file that this process has open."""
    return target.is_local and is_special(target.path)
