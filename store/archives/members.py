"""Members of an archive, each made from the model's entries when it is asked for.

Threading: any thread may ask for members.
"""

from __future__ import annotations

import functools
import itertools
import threading
from array import array
from collections.abc import Callable, Iterator
from weakref import WeakValueDictionary

from bentofs.store.archives.crc32_cache import MeasuredFile, Measurements
from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.members import Member, Shape
from bentofs.store.storage.base import Entry
from bentofs.store.storage.entries import Entries
from bentofs.store.storage.pinned import PinnedFile
from bentofs.store.util.lazy_sequence import LazySequence

_UNKNOWN = -1
_ASKED = 500  # CRC-32s looked up at a time


class Members(LazySequence[Member]):
    """The members of an archive."""

    def __init__(self, entries: Entries, content: Callable[[Entry], Piece]) -> None:
        self._entries = entries
        self._content = content

    def __len__(self) -> int:
        return len(self._entries)

    def item(self, number: int) -> Member:
        """Make the member with this number."""
        return self._member(number, self._entries[number])

    def shapes(self) -> Iterator[Shape]:
        """Yield the shape of each member, in order."""
        return self._entries.shapes()

    def __iter__(self) -> Iterator[Member]:
        return map(self._member, itertools.count(), self._entries)

    def _member(self, _number: int, entry: Entry) -> Member:
        content = self._content(entry) if entry.identity and entry.identity.size else None
        return Member(entry.path, entry.is_folder, entry.executable, content)


class MeasuredMembers(Members):
    """Members whose contents know their CRC-32s."""

    def __init__(self, entries: Entries, open_file: Callable[[Entry], PinnedFile], measurements: Measurements) -> None:
        """`open_file`: returns a file's content."""
        super().__init__(entries, open_file)
        self._open_file = open_file
        self._measurements = measurements
        # A content computes its unknown CRC-32 while it is read. So all who use it must get the same object.
        self._measuring: WeakValueDictionary[int, MeasuredFile] = WeakValueDictionary()
        self._lock = threading.Lock()  # guards _measuring

    @functools.cached_property
    def _crc32s(self) -> array[int]:
        """The known CRC-32s. They are looked up when the first content is made: lengths need none."""
        return known_crc32s(self._entries, self._measurements)

    def _member(self, number: int, entry: Entry) -> Member:
        content = self._measured(number, entry) if entry.identity and entry.identity.size else None
        return Member(entry.path, entry.is_folder, entry.executable, content)

    def _measured(self, number: int, entry: Entry) -> MeasuredFile:
        known = self._crc32s[number]
        if known != _UNKNOWN:
            return MeasuredFile(self._measurements, self._open_file(entry), crc32=known)
        with self._lock:
            found = self._measuring.get(number)
            if found is None:
                learnt = functools.partial(self._crc32s.__setitem__, number)
                found = MeasuredFile(self._measurements, self._open_file(entry), learnt=learnt)
                self._measuring[number] = found
            return found


def known_crc32s(entries: Entries, measurements: Measurements) -> array[int]:
    """Return the CRC-32 of each file that is not empty, by number; -1 if it is unknown. Look up many at a time."""
    found = array("q", [_UNKNOWN]) * len(entries)
    numbered = enumerate(entries)
    while batch := list(itertools.islice(numbered, _ASKED)):
        unknown = {}
        for number, entry in batch:
            if entry.crc32 is not None:
                found[number] = entry.crc32
            elif entry.size and entry.identity is not None:
                unknown[number] = entry.identity
        known = measurements.known(list(unknown.values())) if unknown else {}
        for number, identity in unknown.items():
            found[number] = known.get(identity, _UNKNOWN)
    return found


def unknown_files(entries: Entries, measurements: Measurements) -> Iterator[Entry]:
    """Yield the files whose CRC-32 is unknown."""
    known = known_crc32s(entries, measurements)
    return (entry for entry, crc32 in zip(entries, known, strict=True) if entry.size and crc32 == _UNKNOWN)
