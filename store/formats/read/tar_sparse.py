"""Maps of sparse files in tar archives: the regions of a file that the archive holds. The gaps are zeros.

There are four kinds. GNU tar's old map is in the header and in blocks after it. The other three use pax headers: 0.0
and 0.1 are in records, 1.0 is before the content. bsdtar writes the last kind by default.

Threading: functions without state.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bentofs.store.errors import DamagedArchiveError, TooBigError
from bentofs.store.formats.read.stream import Stream
from bentofs.store.formats.read.tar_header import BLOCK, MAX_SIZE, read_size

MAX_REGIONS = 100_000  # regions of one file
_IN_HEADER, _IN_BLOCK = (386, 4, 482), (0, 21, 504)  # GNU tar's: offset, pairs, and the byte that announces more
_PAIR = 24  # bytes of an offset and a length in it
_REAL_SIZE = slice(483, 495)
_MAX_DIGITS = 20


class SparseMap(NamedTuple):
    """The regions of a file that the archive holds."""

    size: int  # bytes of the file
    offsets: array[int]
    lengths: array[int]

    @classmethod
    def of(cls, size: int, numbers: Iterable[int]) -> SparseMap:
        """Check a map. `numbers`: offset and length of each region, alternating.

        Raises:
            DamagedArchiveError: regions overlap, are out of order, lie after the end, or do not fill whole blocks.
            TooBigError: there are too many.
        """
        found = cls(size, array("Q"), array("Q"))
        end, is_last = 0, False
        pairs = iter(numbers)
        for offset, length in zip(pairs, pairs, strict=True):
            if len(found.offsets) >= MAX_REGIONS:
                raise TooBigError("the archive holds a sparse file in too many pieces: make it without sparse files")
            if offset < end or offset + length > size or (length and is_last):
                raise damaged()
            end = offset + length
            # GNU tar rounds each region to whole blocks, bsdtar does not. They agree only for the last region.
            is_last = is_last or length % BLOCK != 0
            found.offsets.append(offset)
            found.lengths.append(length)
        return found

    @property
    def stored(self) -> int:
        """Return the bytes of all regions."""
        return sum(self.lengths)

    def regions(self) -> Iterator[tuple[int, int]]:
        """Yield offset and length of each region, in order."""
        return zip(self.offsets, self.lengths, strict=True)


def read_old_map(header: bytes, stream: Stream) -> SparseMap:
    """Read the map in a GNU tar header and in the blocks after it. Leave the stream after those blocks.

    Raises:
        DamagedArchiveError, TooBigError: see `SparseMap.of`; or blocks are missing.
    """
    numbers = array("Q")
    block, (start, count, more) = header, _IN_HEADER
    while True:
        is_full = True
        for at in range(start, start + count * _PAIR, _PAIR):
            if not block[at + 12]:
                is_full = False
                break
            numbers.extend((read_size(block[at : at + 12]), read_size(block[at + 12 : at + _PAIR])))
        if not block[more]:
            return SparseMap.of(read_size(header[_REAL_SIZE]), numbers)
        if len(numbers) > 2 * MAX_REGIONS:
            raise TooBigError("the archive holds a sparse file in too many pieces: make it without sparse files")
        block, (start, count, more) = stream.exactly(BLOCK), _IN_BLOCK
        if len(block) < BLOCK or not is_full:
            raise damaged()


def read_map_before_content(stream: Stream, size: int, stored: int) -> tuple[SparseMap, int]:
    """Read the map before the content of a file of `size` bytes. The archive holds `stored` bytes, including the map.
    Return the map and its length in bytes: whole blocks.

    Raises:
        DamagedArchiveError, TooBigError: see `SparseMap.of`.
    """
    numbers = _Numbers(stream, stored)
    count = next(numbers)
    if count > MAX_REGIONS:
        raise TooBigError("the archive holds a sparse file in too many pieces: make it without sparse files")
    found = SparseMap.of(size, (next(numbers) for _ in range(2 * count)))
    return found, numbers.taken


class _Numbers:
    """Reader of decimal numbers that each end with a newline."""

    def __init__(self, stream: Stream, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._rest = b""
        self.taken = 0  # bytes

    def __next__(self) -> int:
        while b"\n" not in self._rest[: _MAX_DIGITS + 1]:
            block = self._stream.exactly(BLOCK) if self.taken + BLOCK <= self._limit else b""
            if len(block) < BLOCK or len(self._rest) > _MAX_DIGITS:
                raise damaged()
            self.taken += BLOCK
            self._rest += block
        digits, _, self._rest = self._rest.partition(b"\n")
        if not digits.isdigit() or int(digits) > MAX_SIZE:
            raise damaged()
        return int(digits)


def damaged() -> DamagedArchiveError:
    """Return the error for an inconsistent map."""
    return DamagedArchiveError.damaged("the map of a sparse file in it is wrong")
