"""Exporting: a model becomes an archive, or a folder, at any place that can be written to. No file is made on the way.

Threading: an `Exporter` may be used from any thread, for any number of exports at once.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass

from store.archive.formats import BENTOMODEL, FORMATS, Format
from store.archive.members import Member
from store.archive.pieces import Literal, Piece
from store.archives import Archives
from store.catalog import ModelStore
from store.compression import Compression
from store.endpoints.base import Progress
from store.endpoints.connect import open_target
from store.endpoints.local import write_out
from store.errors import BadLocationError
from store.location import Location
from store.model import Model
from store.servers.stops import Stops, refuse_if_stopped
from store.sums import SUFFIX, write_sums
from store.tag import Tag

FOLDER = "folder"

# What BentoML calls formats, and what else people write.
_ALIASES = {"gz": "tar.gz", "tgz": "tar.gz", "xz": "tar.xz", "txz": "tar.xz", "bz2": "tar.bz2", "tbz2": "tar.bz2"}


def known_formats() -> list[str]:
    """What `format_named` takes, for users."""
    return [*FORMATS, *_ALIASES, FOLDER]


def format_named(name: str) -> Format | None:
    """The format that BentoML or we call so; None for a folder.

    Raises:
        BadLocationError: nobody does.
    """
    if name == FOLDER:
        return None
    kind = FORMATS.get(_ALIASES.get(name, name))
    if kind is None:
        raise BadLocationError(f"{name!r} is no format that is known here; there are {', '.join(known_formats())}")
    return kind


def format_of(path: str) -> Format:
    """The format that a path's extension names; .bentomodel for any other, as BentoML has it."""
    extension = os.path.splitext(path)[1][1:]
    return FORMATS.get(_ALIASES.get(extension, extension), BENTOMODEL)


@dataclass(frozen=True)
class Export:
    """What is to be exported, and where to."""

    model: Model
    format: Format | None  # None for a folder
    location: Location


@dataclass(frozen=True)
class Exported:
    """What was exported."""

    tag: Tag
    url: str  # without credentials; a path on this machine
    size: int  # bytes
    sha256: str | None  # of an archive, hexadecimal, if it was asked for


class Exporter:
    """Exports from one store."""

    def __init__(self, store: ModelStore, archives: Archives) -> None:
        self._store = store
        self._archives = archives

    def plan(self, tag: Tag, target: Location, format_name: str | None = None) -> Export:
        """What exporting a model to a target comes to, by BentoML's rules.

        Raises:
            BadLocationError: the format is not known, or cannot be had with the archives' compression.
            NotFoundError, BadModelError, StoreUnreadableError: there is no such model to read.
        """
        kind = format_named(format_name) if format_name is not None else format_of(target.path)
        model = self._store.model(tag, max_age=0)
        stem = f"{tag.name}-{tag.version}"
        if kind is None:
            # A folder that is there gets a folder in it; one that is not becomes the model.
            is_there = target.is_local and os.path.isdir(target.path)
            return Export(model, None, target.below(stem) if is_there else target)
        if kind.lay_out is None and self._archives.compression is Compression.NEVER:
            raise BadLocationError(f"{kind.name} cannot be made without compression: use --compression auto")
        if target.is_folder:
            target = target.below(stem + kind.suffix)
        elif kind is BENTOMODEL and not target.path.endswith(kind.suffix) and not _is_special(target):
            target = target.at(target.path + kind.suffix)
        return Export(model, kind, target)

    def give_up(self) -> None:
        """End what is being measured: whoever waits for it gets CancelledError, now and later."""
        self._archives.close()

    def size(self, export: Export) -> int:
        """Bytes that an export will write. For what is compressed they must be measured, which takes a while."""
        return self._archives.open(export.model, export.format).length if export.format else export.model.size

    def run(self, export: Export, progress: Progress, *, sha256: bool = False, stops: Stops = ()) -> Exported:
        """Export; when this returns, the target has all of it. It ends soon once one of `stops` is set.

        Raises:
            StoreError: why not. Nothing of it stands under the target's name.
        """
        location = export.location

        def advance(count: int) -> None:
            refuse_if_stopped(stops)
            progress(count)

        with closing(open_target(location, stops)) as target:
            if export.format is None:
                target.write_folder(location.path, self._members(export.model), advance)
                return Exported(export.model.tag, location.url, export.model.size, None)
            archive = self._archives.open(export.model, export.format)
            target.write(location.path, archive, advance)
            digest = None
            if sha256:
                digest = self._archives.sha256(export.model, export.format)
                sums = Literal(write_sums(digest, os.path.basename(location.path)))
                target.write(location.path + SUFFIX, sums, lambda _count: None)
        return Exported(export.model.tag, location.url, archive.length, digest)

    def write_out(self, model: Model, kind: Format, descriptor: int, name: str, progress: Progress) -> Exported:
        """Write an archive to a descriptor, as standard output; `name`: of that, for errors."""
        archive: Piece = self._archives.open(model, kind)
        write_out(descriptor, name, archive, progress)
        return Exported(model.tag, name, archive.length, None)

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


def _is_special(target: Location) -> bool:
    """Whether it is a device or a pipe of this machine, whose name is not to be changed."""
    return target.is_local and os.path.exists(target.path) and not os.path.isfile(target.path)
