"""Entries: all files and directories of a model, in columns, since a model may have hundreds of thousands.

An `Entry` is made when it is asked for. The order is the order in archives: `model.yaml` first, so that a reader knows
early what follows, then the rest by the bytes of the path. So a directory comes before its contents, and a path is
found by bisection. Code that iterates over all entries several times calls `list(entries)` once.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bentofs.store.storage.base import Entry, Identity
from bentofs.store.util.clock import SECOND_NS
from bentofs.store.util.lazy_sequence import LazySequence

FIRST_PATH = "model.yaml"  # path of the first entry
_FIRST = FIRST_PATH.encode()
_FOLDER, _EXECUTABLE = 1, 2
UNKNOWN = -1  # a CRC-32 that the store does not record
_COLUMNS = 57  # bytes of one entry in all columns except the paths
_SOURCE = 250  # bytes of a source that is kept as a string


class _Columns:
    """Columns that hold one value for each entry."""

    __slots__ = ("crcs", "ctime_ns", "ctimes", "devices", "flags", "inodes", "mtime_ns", "mtimes", "sizes")

    def __init__(self) -> None:
        self.flags = array("B")
        self.devices, self.inodes, self.sizes = array("Q"), array("Q"), array("Q")
        self.mtimes, self.mtime_ns = array("q"), array("I")  # whole seconds, and the rest in ns: any year fits
        self.ctimes, self.ctime_ns = array("q"), array("I")
        self.crcs = array("q")

    def all(self) -> list[array[int]]:
        return [getattr(self, name) for name in self.__slots__]

    def add(self, flags: int, identity: Identity | None, crc32: int | None) -> None:
        device, inode, size, mtime_ns, ctime_ns = identity or (0, 0, 0, 0, 0)
        self.flags.append(flags)
        self.devices.append(device)
        self.inodes.append(inode)
        self.sizes.append(size)
        self.mtimes.append(mtime_ns // SECOND_NS)
        self.mtime_ns.append(mtime_ns % SECOND_NS)
        self.ctimes.append(ctime_ns // SECOND_NS)
        self.ctime_ns.append(ctime_ns % SECOND_NS)
        self.crcs.append(UNKNOWN if crc32 is None else crc32)

    def in_order(self, order: Sequence[int]) -> _Columns:
        ordered = _Columns()
        for name in self.__slots__:
            column = getattr(self, name)
            setattr(ordered, name, array(column.typecode, map(column.__getitem__, order)))
        return ordered


class Entries(LazySequence[Entry]):
    """The entries of a model. Immutable. Two are equal, with equal hashes, if all entries are equal."""

    __slots__ = ("_base", "_columns", "_first", "_folders", "_paths", "_sources", "_starts", "folder_looks")

    def __init__(
        self,
        base: str,
        paths: Iterable[bytes],
        columns: _Columns,
        sources: dict[int, str],
        folder_looks: Sequence[Identity] = (),
    ) -> None:
        """`base`: the directory that holds all sources at their paths; `sources`: the exceptions, by entry number.
        `folder_looks`: the identities of the model's directory and of all directories below it, in order; empty if they
        do not tell whether names have changed. They are no part of the entries."""
        self._base = base
        self.folder_looks = tuple(folder_looks) if not sources else ()
        self._starts = array("Q", [0])
        content = bytearray()
        for path in paths:
            content += path
            self._starts.append(len(content))
        self._paths = bytes(content)
        self._columns = columns
        self._sources = sources
        self._folders = array("I", (number for number, flags in enumerate(columns.flags) if flags & _FOLDER))
        self._first = int(len(columns.flags) > 0 and self._path(0) == _FIRST)  # index of the first sorted entry

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """Build from entries in any order."""
        builder: EntriesBuilder | None = None
        for entry in entries:
            if builder is None:
                builder = EntriesBuilder(entry.source.removesuffix(f"/{entry.path}"))
            builder.add(*entry)
        return (builder or EntriesBuilder("")).build()

    def __len__(self) -> int:
        return len(self._columns.flags)

    def item(self, number: int) -> Entry:
        """Make the entry with this number."""
        return self._entry(number, os.fsdecode(self._path(number)))

    def _entry(self, number: int, path: str) -> Entry:
        columns = self._columns
        flags = columns.flags[number]
        identity = None
        if not flags & _FOLDER:
            identity = Identity(
                columns.devices[number],
                columns.inodes[number],
                columns.sizes[number],
                columns.mtimes[number] * SECOND_NS + columns.mtime_ns[number],
                columns.ctimes[number] * SECOND_NS + columns.ctime_ns[number],
            )
        crc32 = columns.crcs[number]
        return Entry(
            path,
            bool(flags & _FOLDER),
            bool(flags & _EXECUTABLE),
            identity,
            self._sources.get(number) or f"{self._base}/{path}",
            None if crc32 == UNKNOWN else crc32,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entries) and (self is other or self._parts() == other._parts())

    def __hash__(self) -> int:
        columns = tuple(hash(column.tobytes()) for column in (self._starts, *self._columns.all()))
        return hash((self._paths, self._base, columns, tuple(self._sources.items())))

    @property
    def size(self) -> int:
        """Return the size of all files in bytes."""
        return sum(self._columns.sizes)

    @property
    def sizes(self) -> Sequence[int]:
        """Return the size of each entry in bytes, in order; 0 for a directory."""
        return self._columns.sizes

    @property
    def crc32s(self) -> Sequence[int]:
        """Return the CRC-32 of each entry's bytes that the store itself records, in order; `UNKNOWN` for others."""
        return self._columns.crcs

    def shapes(self) -> Iterator[tuple[bytes, bool, bool, int]]:
        """Yield each entry's path, true for a directory, true if its owner may execute it, and its size, in order. This
        is much faster than making the entries."""
        columns, paths, start = self._columns, self._paths, 0
        for stop, flags, size in zip(self._starts[1:], columns.flags, columns.sizes, strict=True):
            yield paths[start:stop], bool(flags & _FOLDER), bool(flags & _EXECUTABLE), size
            start = stop

    def files(self, numbers: Iterable[int]) -> Iterator[tuple[str, Identity]]:
        """Yield the source and the identity of each of these entries, which are files. This is faster than making the
        entries."""
        columns, sources, base = self._columns, self._sources, self._base
        for number in numbers:
            yield (
                sources.get(number) or f"{base}/{os.fsdecode(self._path(number))}",
                Identity(
                    columns.devices[number],
                    columns.inodes[number],
                    columns.sizes[number],
                    columns.mtimes[number] * SECOND_NS + columns.mtime_ns[number],
                    columns.ctimes[number] * SECOND_NS + columns.ctime_ns[number],
                ),
            )

    def content(self) -> Iterator[bytes]:
        """Yield all that decides the bytes of the model, for a digest: paths, modes and identities. Two models have the
        same content only if these are the same."""
        columns = self._columns
        yield self._starts.tobytes()
        yield self._paths
        for name in columns.__slots__:
            if name != "crcs":
                yield getattr(columns, name).tobytes()

    def identities(self) -> Iterator[tuple[bytes, bool, tuple[int, int, int, int, int] | None]]:
        """Yield each entry's path, true if its owner may execute it, and the fields of its identity, None for a
        directory; in order."""
        columns, paths, start = self._columns, self._paths, 0
        times = zip(columns.mtimes, columns.mtime_ns, columns.ctimes, columns.ctime_ns, strict=True)
        places = zip(columns.devices, columns.inodes, columns.sizes, strict=True)
        for stop, flags, place, (mtime, mtime_ns, ctime, ctime_ns) in zip(
            self._starts[1:], columns.flags, places, times, strict=True
        ):
            identity = None
            if not flags & _FOLDER:
                identity = (*place, mtime * SECOND_NS + mtime_ns, ctime * SECOND_NS + ctime_ns)
            yield paths[start:stop], bool(flags & _EXECUTABLE), identity
            start = stop

    @property
    def folder_count(self) -> int:
        """Return the number of directories."""
        return len(self._folders)

    @property
    def weight(self) -> int:
        """Return the memory use in bytes."""
        exceptions = len(self._sources) + len(self.folder_looks)
        return len(self._paths) + len(self) * _COLUMNS + exceptions * _SOURCE

    def find(self, path: str) -> Entry | None:
        """Return the entry at a path in the model's directory, or None."""
        number = self._number(os.fsencode(path), len(self))
        return self.item(number) if number is not None else None

    def find_all(self, paths: Iterable[str]) -> Iterator[Entry | None]:
        """Yield the entry at each of these paths, or None. In the order of `children` they are found without a
        search."""
        number: int | None = -1
        for path in paths:
            number = self._number(os.fsencode(path), len(self) if number is None else number + 1)
            yield self._entry(number, path) if number is not None else None

    def _number(self, wanted: bytes, guess: int) -> int | None:
        """Return the number of the entry at a path, or None. `guess`: a number that it may have."""
        if guess < len(self) and self._path(guess) == wanted:
            return guess
        number = 0 if self._first and wanted == _FIRST else self._bisect(wanted, self._first)
        return number if number < len(self) and self._path(number) == wanted else None

    def children(self, folder: str) -> Iterator[tuple[str, bool]]:
        """Yield the name of each entry in a directory of the model, and True if it is a directory; in order. An empty
        `folder` is the model's own directory."""
        prefix, number, stop = self._range(folder)
        while number < stop:
            name, slash, _ = self._path(number)[len(prefix) :].partition(b"/")
            if slash:  # skip the whole subdirectory at once: its entries are adjacent, and may be many
                number = self._bisect(prefix + name + b"0", number)
            else:
                yield os.fsdecode(name), bool(self._columns.flags[number] & _FOLDER)
                number += 1

    def folders_in(self, folder: str) -> int:
        """Return the number of subdirectories in a directory of the model."""
        prefix, start, stop = self._range(folder)
        folders = self._folders[bisect_left(self._folders, start) : bisect_left(self._folders, stop)]
        return sum(self._path(number).find(b"/", len(prefix)) < 0 for number in folders)

    def _range(self, folder: str) -> tuple[bytes, int, int]:
        """Return the prefix of all paths in a directory, and the range of their numbers."""
        if not folder:
            return b"", 0, len(self)
        path = os.fsencode(folder)
        start = self._bisect(path + b"/", self._first)
        return path + b"/", start, self._bisect(path + b"0", start)  # "0" is the byte after "/"

    def _bisect(self, wanted: bytes, low: int) -> int:
        """Return the first number from `low` on whose path is not less than `wanted`."""
        high = len(self)
        while low < high:
            middle = (low + high) // 2
            if self._path(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def _path(self, number: int) -> bytes:
        return self._paths[self._starts[number] : self._starts[number + 1]]

    def _parts(self) -> tuple[object, ...]:
        return (self._paths, self._base, self._starts, self._columns.all(), self._sources)


class EntriesBuilder:
    """Builds `Entries` from entries in any order."""

    def __init__(self, base: str) -> None:
        """`base`: the directory that holds most sources at their paths."""
        self._base = base
        self._paths: list[bytes] = []
        self._columns = _Columns()
        self._sources: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def add(
        self,
        path: str,
        is_folder: bool,
        executable: bool,
        identity: Identity | None,
        source: str,
        crc32: int | None = None,
    ) -> None:
        """Add one entry, given by the fields of `Entry`."""
        if source != f"{self._base}/{path}":
            self._sources[len(self._paths)] = source
        self._paths.append(os.fsencode(path))
        self._columns.add(is_folder * _FOLDER | executable * _EXECUTABLE, identity, crc32)

    def build(self, folder_looks: Mapping[str, Identity] | None = None) -> Entries:
        """Return all added entries, in archive order. `folder_looks`: the identity of each directory, by path; None if
        they are unknown."""
        paths = self._paths
        order = sorted(range(len(paths)), key=paths.__getitem__)
        if _FIRST in paths:
            first = paths.index(_FIRST)
            order.remove(first)
            order.insert(0, first)
        sources = {}
        if self._sources:
            sources = {at: self._sources[number] for at, number in enumerate(order) if number in self._sources}
        looks = []
        if folder_looks is not None:
            folders = (paths[number] for number in order if self._columns.flags[number] & _FOLDER)
            looks = [folder_looks[path] for path in ("", *map(os.fsdecode, folders))]
        return Entries(self._base, map(paths.__getitem__, order), self._columns.in_order(order), sources, looks)
