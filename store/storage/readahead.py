"""ReadAhead: fetches remote objects in ranges, with bounded memory. Random reads fetch only the bytes that are asked
for. Sequential reads fetch ahead, in parallel.

A read that continues where another one ended, even in the next file of the model, belongs to the same stream. The
read-ahead is as large as the bytes read in sequence, up to a limit, so that a short read costs little more than itself.

Threading: any thread. A reader fetches the bytes that it waits for; a few threads fetch ahead.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from bentofs.store.clients.objects import ObjectInfo
from bentofs.store.util.threads import handed_over

_FETCHERS = 16
_SLACK = 2 << 20  # bytes by which the kernel's requests may be out of order
_SMALLEST = 256 << 10  # bytes fetched ahead at a time
_LARGEST = 8 << 20
_AWAITED_SECONDS = 10.0  # for which fetched bytes are kept for their reader
_STEADY = 3  # reads in sequence before anything is fetched ahead: a member of an archive is a header and its content
_STREAMS = 64  # number of streams that are tracked
_SPARE_SHARE = 8  # the part of the memory that may be buffers for reuse

Fetch = Callable[[ObjectInfo, int, int, bytearray | None], bytes | bytearray]


class Pin(NamedTuple):
    """One file of a model, with all its files in archive order."""

    files: tuple[ObjectInfo, ...]
    number: int

    @property
    def object(self) -> ObjectInfo:
        return self.files[self.number]


@dataclass(eq=False)
class _Extent:
    """The bytes [start, end) of an object: in memory, or being fetched."""

    owner: _CachedObject
    start: int
    end: int
    content: Future[bytes | bytearray] = field(default_factory=Future)
    awaited_since: float = -math.inf  # monotonic time of the read-ahead, until the extent is read
    readers: int = 0  # threads that copy its bytes, or wait for them
    buffer: bytearray | None = None  # to be filled

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(eq=False)
class _CachedObject:
    """The extents of one object. They do not overlap."""

    pin: Pin
    starts: list[int] = field(default_factory=list)
    extents: list[_Extent] = field(default_factory=list)

    def add(self, extent: _Extent) -> None:
        at = bisect_right(self.starts, extent.start)
        self.starts.insert(at, extent.start)
        self.extents.insert(at, extent)

    def remove(self, extent: _Extent) -> None:
        at = bisect_right(self.starts, extent.start) - 1
        if at >= 0 and self.extents[at] is extent:
            del self.starts[at], self.extents[at]


@dataclass(eq=False)
class _Stream:
    """One sequential reader."""

    pin: Pin
    position: int  # in the object: the offset of the expected next read
    run: int = 0  # bytes read in sequence
    reads: int = 1  # their number
    ahead_pin: Pin | None = None  # the end of the read-ahead: an object,
    ahead_position: int = 0  # an offset in it,
    ahead: int = 0  # and its distance from `position` in bytes


class ReadAhead:
    """The read-ahead cache of one store."""

    def __init__(self, fetch: Fetch, limit: int) -> None:
        """`fetch`: returns bytes of an object, or raises. It may fill and return the buffer that it is given, which has
        the right size. `limit`: bytes of memory."""
        self._fetch = fetch
        self._spare_limit = limit // _SPARE_SHARE
        self._limit = limit - self._spare_limit
        self._largest_window = limit // 2
        self._largest_extent = max(_SMALLEST, min(_LARGEST, limit // 16))
        self._lock = threading.Lock()
        # The key is the whole listing entry: the object may have no ETag.
        self._objects: dict[ObjectInfo, _CachedObject] = {}
        self._order: OrderedDict[_Extent, None] = OrderedDict()  # the first one is dropped first
        self._size = 0  # bytes, including those being fetched
        # Buffers of dropped extents. A new one costs more than the bytes that are received into it: the kernel clears
        # each of its pages.
        self._spare: list[bytearray] = []
        self._streams: OrderedDict[_Stream, None] = OrderedDict()
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="read-ahead")

    def read_into(self, pin: Pin, views: Sequence[memoryview], offset: int) -> None:
        """Fill the views with the object's bytes from `offset` on. The object must be long enough. Raises what `fetch`
        raises."""
        end = offset + sum(len(view) for view in views)
        with self._lock:
            extents, missing = self._cover(pin, offset, end)
            for extent in extents:
                extent.readers += 1
            self._follow(pin, offset, end)
        try:
            for extent in missing:
                self._fill(extent)
            contents = [(extent, memoryview(extent.content.result())) for extent in extents]
            _scatter(contents, views, offset)
        finally:
            with self._lock:
                for extent in extents:
                    extent.readers -= 1
        with self._lock:
            now = time.monotonic()
            for extent in extents:
                if extent.end > end:
                    extent.awaited_since = max(extent.awaited_since, now - _AWAITED_SECONDS / 2)  # rest is read next
                else:
                    extent.awaited_since = -math.inf
                    if extent in self._order:
                        self._order.move_to_end(extent, last=False)  # read to its end: the kernel caches it now

    def _cover(self, pin: Pin, start: int, end: int) -> tuple[list[_Extent], list[_Extent]]:
        """Return the extents that hold [start, end), in order, and the new ones among them, which must be fetched."""
        cached = self._objects.setdefault(pin.object, _CachedObject(pin))
        covering: list[_Extent] = []
        missing: list[_Extent] = []
        while start < end:
            at = bisect_right(cached.starts, start) - 1
            if at >= 0 and cached.extents[at].end > start:
                extent = cached.extents[at]
            else:
                gap_end = cached.starts[at + 1] if at + 1 < len(cached.starts) else end
                extent = _Extent(cached, start, min(end, gap_end))
                extent.buffer = self._spare_of(extent.size)
                cached.add(extent)
                self._order[extent] = None
                self._size += extent.size
                missing.append(extent)
            covering.append(extent)
            start = extent.end
        if missing:
            self._make_room(0, set(covering))
        return covering, missing

    def _make_room(self, wanted: int, kept: set[_Extent]) -> None:
        """Drop extents until `wanted` more bytes fit, if possible. Keep the extents that a reader needs next."""
        before = time.monotonic() - _AWAITED_SECONDS
        for extent in list(self._order) if self._size + wanted > self._limit else ():
            if self._size + wanted <= self._limit:
                break
            if extent.content.done() and extent not in kept and extent.awaited_since < before:
                self._drop(extent)

    def _drop(self, extent: _Extent) -> None:
        if extent in self._order:
            del self._order[extent]
            self._size -= extent.size
            extent.owner.remove(extent)
            self._reuse(extent)
            if not extent.owner.extents:
                info = extent.owner.pin.object
                if self._objects.get(info) is extent.owner:
                    del self._objects[info]

    def _reuse(self, extent: _Extent) -> None:
        """Keep the buffer of a dropped extent, unless a thread may still read it."""
        if extent.readers or not extent.content.done() or extent.content.exception() is not None:
            return
        content = extent.content.result()
        if isinstance(content, bytearray) and len(content) >= _SMALLEST:
            self._spare.append(content)
            while sum(map(len, self._spare)) > self._spare_limit:
                self._spare.pop(0)

    def _spare_of(self, size: int) -> bytearray | None:
        """Return a buffer for so many bytes that nobody uses; None if there is none."""
        number = next((number for number, spare in enumerate(self._spare) if len(spare) == size), None)
        return None if number is None else self._spare.pop(number)

    def _fill(self, extent: _Extent) -> None:
        try:
            buffer, extent.buffer = extent.buffer, None
            content = self._fetch(extent.owner.pin.object, extent.start, extent.end, buffer)
        except BaseException as error:
            with self._lock:
                self._drop(extent)
            extent.content.set_exception(error)
        else:
            extent.content.set_result(content)

    def _follow(self, pin: Pin, start: int, end: int) -> None:
        """Record a read, and start the read-ahead of its stream."""
        stream = self._stream_of(pin, start)
        if stream is None:
            stream = _Stream(pin, end, end - start)
            self._streams[stream] = None
            if len(self._streams) > _STREAMS:
                self._streams.popitem(last=False)
            return
        self._streams.move_to_end(stream)
        stream.reads += 1
        if stream.pin.object != pin.object:
            advanced = end
            stream.pin, stream.position = pin, end
        else:
            advanced = max(0, end - stream.position)
            stream.position = max(stream.position, end)
        stream.run += advanced
        stream.ahead -= advanced
        if stream.ahead <= 0 or stream.ahead_pin is None:
            stream.ahead, stream.ahead_pin, stream.ahead_position = 0, stream.pin, stream.position
        if stream.reads >= _STEADY:
            self._fetch_ahead(stream)

    def _stream_of(self, pin: Pin, start: int) -> _Stream | None:
        wanted = pin.object
        for stream in reversed(self._streams):
            there = stream.pin.object
            if there == wanted:
                if stream.position - _SLACK <= start <= stream.position + _SLACK:
                    return stream
            elif start <= _SLACK and stream.position >= there.size - _SLACK and _follows(stream.pin, pin):
                return stream
        return None

    def _fetch_ahead(self, stream: _Stream) -> None:
        window = min(stream.run, self._largest_window)
        step = max(_SMALLEST, min(window // 4, self._largest_extent))
        pin: Pin | None = stream.ahead_pin
        while pin is not None and window - stream.ahead >= min(step, pin.object.size - stream.ahead_position):
            end = min(stream.ahead_position + step, pin.object.size)
            self._make_room(end - stream.ahead_position, set())
            if self._size + (end - stream.ahead_position) > self._limit:
                break
            missing = self._cover(pin, stream.ahead_position, end)[1]
            for number, extent in enumerate(missing):
                extent.awaited_since = time.monotonic()
                if not handed_over(self._fetchers, functools.partial(self._fill, extent)):
                    for left in missing[number:]:
                        self._drop(left)  # its reader fetches it
                    return
            stream.ahead += end - stream.ahead_position
            stream.ahead_position = end
            if end == pin.object.size:
                pin = Pin(pin.files, pin.number + 1) if pin.number + 1 < len(pin.files) else None
                stream.ahead_position = 0
            stream.ahead_pin = pin
            if window - stream.ahead <= 0:
                break


def _follows(first: Pin, second: Pin) -> bool:
    """True if the second file is the next one that is not empty."""
    if first.files is not second.files or second.number <= first.number:
        return False
    return all(first.files[between].size == 0 for between in range(first.number + 1, second.number))


def _scatter(contents: list[tuple[_Extent, memoryview]], views: Sequence[memoryview], offset: int) -> None:
    """Fill the views with the bytes from `offset` on, from extents that cover them."""
    position = 0
    for view in views:
        filled = 0
        while filled < len(view):
            extent, content = contents[position]
            begin = offset - extent.start
            count = min(len(view) - filled, extent.end - offset)
            view[filled : filled + count] = content[begin : begin + count]
            filled += count
            offset += count
            if offset == extent.end:
                position += 1
