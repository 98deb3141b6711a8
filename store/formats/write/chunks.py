"""Chunks: pieces of compressed content. Their lengths were measured; their bytes are made on read.

Content is cut into chunks that are compressed separately, so each can be made alone
(`store.formats.write.chunk_maker`).

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

Name = tuple[str, str]  # of content, and of the codec it was measured with
Key = tuple[Name, int]  # of a chunk: its content, and its number in the content

_TRACKED = 16  # places in one archive where readers may be

Encode = Callable[[memoryview, int, bytes], bytes]  # a chunk's content, its number, and the content before it


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
    size_of: Callable[[bytes], int] = len  # the number that the measurement keeps for a chunk
    length_of: Callable[[int], int] = _itself  # the chunk's length, from that number
    window: int = 0  # bytes of the content before a chunk that are given to `encode`

    def count(self, length: int) -> int:
        """Return the number of chunks of `length` bytes of content."""
        return -(-length // self.chunk)

    def units(self, content: Piece, start: int, stop: int) -> Iterator[Unit]:
        """Yield the units of a range of some content, one for each chunk."""
        for at in range(start, stop, self.chunk):
            yield Unit(content, at, min(at + self.chunk, stop))


@runtime_checkable
class Sampled(Protocol):
    """Content whose parts are read more than once."""

    def read_sample(self, offset: int, size: int) -> bytes:
        """Return some bytes that are also read in the normal order, before or after this."""


class Measured(NamedTuple):
    """The measurement of some content's chunks."""

    name: Name
    sizes: array[int]  # one per chunk, from the codec's `size_of`
    of: str  # the content's description, to show to a user


class Maker(Protocol):
    """The maker of chunks (`store.formats.write.chunk_maker`)."""

    def chunk(self, chunks: Chunks, index: int) -> bytes:
        """Return a chunk from the cache, or make it."""

    def encode(self, codec: Codec, content: Piece, start: int, stop: int, number: int) -> bytes:
        """Read and compress [start, stop) of some content: the chunk `number`."""

    def on_wrong(self, name: Name) -> None:
        """Report that the measurement of some content is wrong."""


def check_measured(maker: Maker, measured: Measured, count: int) -> None:
    """Check that so many chunks were measured.

    Raises:
        SourceChangedError: there are fewer.
    """
    if len(measured.sizes) < count:
        maker.on_wrong(measured.name)
        raise SourceChangedError(f"the sizes of {printable(measured.of)} are incomplete; it is measured again")


class Chunks:
    """A piece: a range of some content, compressed chunk by chunk."""

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
        """`first`: the number of the measured chunk that begins at `start`.

        Raises:
            SourceChangedError: fewer chunks were measured than the content has.
        """
        self._maker = maker
        self._codec = codec
        self._content = content
        self._measured = measured
        self._start = start
        self._stop = content.length if stop is None else stop
        self._first = first
        self.count = codec.count(self._stop - start)
        check_measured(maker, measured, first + self.count)
        sizes = measured.sizes[first : first + self.count]
        self._ends = array("Q", itertools.accumulate(map(codec.length_of, sizes)))
        self.length = self._ends[-1]
        # Set by `put_in_order`:
        self.number = 0  # of the first chunk, in the archive
        self.following: Chunks | None = None
        self.track: Track | None = None

    def read_into(self, views: Views, offset: int) -> None:
        """Implement `Piece.read_into`.

        Raises:
            SourceChangedError: also if a chunk does not match its measurement.
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
        """Return the bytes of content in one chunk."""
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
    """The places of the readers in one archive: numbers of chunks."""

    def __init__(self) -> None:
        self.recent: deque[int] = deque(maxlen=_TRACKED)


def put_in_order(chunks: Sequence[Chunks]) -> None:
    """Tell the chunks of one archive their order, so that the next ones can be made ahead."""
    track = Track()
    number = 0
    for each, following in itertools.zip_longest(chunks, chunks[1:]):
        each.track, each.number, each.following = track, number, following
        number += each.count
