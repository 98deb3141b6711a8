"""Members of an archive, each made from the model's entries when it is asked for.

Threading: any thread may ask for members.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from weakref import WeakValueDictionary

from bentofs.store.archives.crc32_cache import MeasuredFile, Measurements
from bentofs.store.formats.crc32 import crc32
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member, Shape, Shaped
from bentofs.store.storage.base import Entry, Identity
from bentofs.store.storage.entries import UNKNOWN, Entries
from bentofs.store.storage.pinned import PinnedFile
from bentofs.store.util.lazy_sequence import LazySequence

_ASKED = 500  # CRC-32s looked up at a time
ReadsWhole = Callable[[Iterable[tuple[str, Identity, memoryview]]], None]


class Members(LazySequence[Member], Shaped):
    """The members of an archive."""

    def __init__(
        self, entries: Entries, content: Callable[[Entry], Piece], read_whole: ReadsWhole | None = None
    ) -> None:
        """`content`: returns a file's content; `read_whole`: see `Storage.read_whole`; None if only lengths matter."""
        self._entries = entries
        self._content = content
        self._read_whole = read_whole

    def __len__(self) -> int:
        return len(self._entries)

    def item(self, number: int) -> Member:
        """Make the member with this number."""
        return self._member(number, self._entries[number])

    def shapes(self) -> Iterator[Shape]:
        """Yield the shape of each member, in order."""
        return self._entries.shapes()

    def read_contents(self, wanted: Sequence[tuple[int, memoryview]]) -> None:
        """Read whole files (`store.formats.write.members.ReadTogether`)."""
        self._read_files(wanted)

    def _read_files(self, wanted: Sequence[tuple[int, memoryview]]) -> list[Identity]:
        """Read whole files. Return their identities."""
        if self._read_whole is None:
            raise AssertionError("these members have no contents")
        files = list(self._entries.files(number for number, _ in wanted))
        self._read_whole((*file, view) for file, (_, view) in zip(files, wanted, strict=True))
        return [identity for _, identity in files]

    def __iter__(self) -> Iterator[Member]:
        return map(self._member, itertools.count(), self._entries)

    def _member(self, _number: int, entry: Entry) -> Member:
        content = self._content(entry) if entry.identity and entry.identity.size else None
        return Member(entry.path, entry.is_folder, entry.executable, content)


class MeasuredMembers(Members):
    """Members whose contents know their CRC-32s."""

    def __init__(
        self,
        entries: Entries,
        open_file: Callable[[Entry], PinnedFile],
        read_whole: ReadsWhole,
        measurements: Measurements,
    ) -> None:
        """`open_file`: returns a file's content; `read_whole`: see `Storage.read_whole`."""
        super().__init__(entries, open_file, read_whole)
        self._open_file = open_file
        self._measurements = measurements
        # A content computes its unknown CRC-32 while it is read. So all who use it must get the same object.
        self._measuring: WeakValueDictionary[int, MeasuredFile] = WeakValueDictionary()
        self._lock = threading.Lock()  # guards _measuring
        self._crc32s = array("q", entries.crc32s)
        self._asked = bytearray(-(-len(entries) // _ASKED))  # true for each group that was looked up

    def read_contents(self, wanted: Sequence[tuple[int, memoryview]]) -> None:
        """Read whole files, and measure their CRC-32s."""
        started_ns, known = time.time_ns(), self._crc32s
        read = list(zip(self._read_files(wanted), wanted, strict=True))
        made = {identity: crc32(view) for identity, (number, view) in read if known[number] == UNKNOWN}
        kept = self._measurements.keep_all(made, started_ns)
        for identity, (number, _) in read:
            if identity in kept:
                known[number] = kept[identity]

    def _member(self, number: int, entry: Entry) -> Member:
        content = self._measured(number, entry) if entry.identity and entry.identity.size else None
        return Member(entry.path, entry.is_folder, entry.executable, content)

    def _measured(self, number: int, entry: Entry) -> MeasuredFile:
        known = self.known_crc32(number)
        if known is not None:
            return MeasuredFile(self._measurements, self._open_file(entry), crc32=known)
        with self._lock:
            found = self._measuring.get(number)
            if found is None:
                learnt = functools.partial(self._crc32s.__setitem__, number)
                found = MeasuredFile(self._measurements, self._open_file(entry), learnt=learnt)
                self._measuring[number] = found
            return found

    def known_crc32(self, number: int) -> int | None:
        """Return the CRC-32 of a file; None if it is unknown (`store.formats.write.members.Summed`). It is looked up as
        late as possible: lengths need none."""
        known = self._crc32s[number]
        if known == UNKNOWN and not self._asked[number // _ASKED]:
            _look_up(self._entries, number // _ASKED * _ASKED, self._crc32s, self._measurements)
            self._asked[number // _ASKED] = True
            known = self._crc32s[number]
        return None if known == UNKNOWN else known


def known_crc32s(entries: Entries, measurements: Measurements) -> array[int]:
    """Return the CRC-32 of each file that is not empty, by number; -1 if it is unknown. Look up many at a time."""
    found = array("q", entries.crc32s)
    for start in range(0, len(entries), _ASKED):
        _look_up(entries, start, found, measurements)
    return found


def _look_up(entries: Entries, start: int, crc32s: array[int], measurements: Measurements) -> None:
    """Set those CRC-32s that are known, for the entries from `start` on that are looked up together."""
    sizes = entries.sizes
    numbers = range(start, min(start + _ASKED, len(entries)))
    unknown = [number for number in numbers if sizes[number] and crc32s[number] == UNKNOWN]
    identities = [identity for _, identity in entries.files(unknown)]
    known = measurements.known(identities) if identities else {}
    for number, identity in zip(unknown, identities, strict=True):
        if identity in known:
            crc32s[number] = known[identity]


def unknown_files(entries: Entries, measurements: Measurements) -> Iterator[Entry]:
    """Yield the files whose CRC-32 is unknown."""
    known = known_crc32s(entries, measurements)
    return (entry for entry, crc32 in zip(entries, known, strict=True) if entry.size and crc32 == UNKNOWN)
