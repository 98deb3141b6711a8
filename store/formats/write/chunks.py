"""Chunks: pieces of compressed content, whose lengths were measured and whose bytes are made when they are read.

Content is cut into chunks that are compressed apart, so that any of them can be made by itself (`store.formats.
chunk_maker`).

Threading: any thread may read.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from bentofs.store.errors import SourceChangedError
from bentofs.store.formats.pieces import Piece, Views, copy_into, split
from bentofs.store.util.display import printable

Name = tuple[str, str]  # of content, and of the codec that it was measured with
Key = tuple[Name, int]  # of a chunk: of what content, and its number in that

_TRACKED = 16  # places of one archive at which readers may be

Encode = Callable[[memoryview, int, bytes], bytes]  # content of a chunk, its number, and what stands before it


def _itself(size: int) -> int:
    return size


class Unit(NamedTuple):
    """A range of some content that becomes one chunk."""

    content: Piece
    start: int
    stop: int


class Codec(NamedTuple):
    """A way to compress chunks."""

    name: str  # changes whenever other bytes could come out
    chunk: int  # bytes of content
    encode: Encode
    size_of: Callable[[bytes], int] = len  # what the measurement keeps of a chunk
    length_of: Callable[[int], int] = _itself  # and the chunk's length, from that
    window: int = 0  # bytes of the content before a chunk that are given to `encode`

    def units(self, content: Piece, start: int, stop: int) -> Iterator[Unit]:
        """What becomes the chunks of a range of some content."""
        for at in range(start, stop, self.chunk):
            yield Unit(content, at, min(at + self.chunk, stop))


@runtime_checkable
class Sampled(Protocol):
    """Content of which parts are read more than once."""

    def read_sample(self, offset: int, size: int) -> bytes:
        """Some bytes, which will be, or were, read in their turn."""


class Measured(NamedTuple):
    """What was learnt of some content's chunks."""

    name: Name
    sizes: array[int]  # one of each chunk, as the codec's `size_of` gives it
    of: str  # what it is, to show to a user


class Maker(Protocol):
    """What makes chunks (`store.formats.write.chunk_maker`)."""

    def chunk(self, chunks: Chunks, index: int) -> bytes:
        """One chunk, at hand or made now."""

    def encode(self, codec: Codec, content: Piece, start: int, stop: int, number: int) -> bytes:
        """Read and compress [start, stop) of some content: the chunk of this number."""

    def on_wrong(self, name: Name) -> None:
        """What was measured of some content is wrong."""


class Chunks:
    """A range of some content, compressed chunk by chunk."""

    __slots__ = (
        "_codec",
        "_content",
        "_ends",
        "_first",
        "_maker",
        "_measured",
        "_start",
        "_stop",
        "count",
        "following",
        "length",
        "number",
        "track",
    )

    def __init__(
        self,
        maker: Maker,
        codec: Codec,
        content: Piece,
        measured: Measured,
        start: int = 0,
        stop: int | None = None,
        first: int = 0,
    ) -> None:
        """`first`: which of the measured chunks begins at `start`.

        Raises:
            SourceChangedError: fewer chunks were measured than there are.
        """
        self._maker = maker
        self._codec = codec
        self._content = content
        self._measured = measured
        self._start = start
        self._stop = content.length if stop is None else stop
        self._first = first
        self.count = -(-(self._stop - start) // codec.chunk)
        sizes = measured.sizes[first : first + self.count]
        self._ends = array("Q", itertools.accumulate(map(codec.length_of, sizes)))
        if len(self._ends) < self.count:
            maker.on_wrong(measured.name)
            raise SourceChangedError(f"too little is known of {printable(measured.of)}; it is measured again")
        self.length = self._ends[-1]
        # Set by `put_in_order`:
        self.number = 0  # of the first chunk, in the archive
        self.following: Chunks | None = None
        self.track: Track | None = None

    def read_into(self, views: Views, offset: int) -> None:
        """As `Piece.read_into`.

        Raises:
            SourceChangedError: also when a chunk comes out otherwise than it was measured.
            CancelledError: the process ends.
        """
        wanted = sum(map(len, views))
        index = bisect_right(self._ends, offset)
        within = offset - (self._ends[index - 1] if index else 0)
        rest = list(views)
        while wanted:
            made = self._maker.chunk(self, index)
            count = min(len(made) - within, wanted)
            head, rest = split(rest, count)
            copy_into(head, made, within)
            wanted -= count
            within = 0
            index += 1

    def key(self, index: int) -> Key:
        return self._measured.name, self._first + index

    def content_length(self, index: int) -> int:
        """Bytes of content in one chunk."""
        return min(self._codec.chunk, self._stop - self._start - index * self._codec.chunk)

    def make(self, index: int) -> bytes:
        """Compress one chunk."""
        start = self._start + index * self._codec.chunk
        number = self._first + index
        made = self._maker.encode(self._codec, self._content, start, start + self.content_length(index), number)
        if self._codec.size_of(made) != self._measured.sizes[number]:
            self._maker.on_wrong(self._measured.name)
            raise SourceChangedError(
                f"{printable(self._measured.of)} is compressed to another length than was measured; it is measured "
                "again when it is looked up again"
            )
        return made


class Track:
    """Where the readers of one archive are: numbers of chunks."""

    def __init__(self) -> None:
        self.recent: deque[int] = deque(maxlen=_TRACKED)


def put_in_order(chunks: Sequence[Chunks]) -> None:
    """Tell the chunks of one archive what follows on what, so that they can be made ahead."""
    track = Track()
    number = 0
    for each, following in itertools.zip_longest(chunks, chunks[1:]):
        each.track, each.number, each.following = track, number, following
        number += each.count
