"""PartBuffers: contents that are read once, hashed, and kept in memory until a server has them.

A retry sends the same bytes again, without another look at their source. The number of large buffers is bounded.

Threading: any thread.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager

from bentofs.store.clients.request_body import Content, HashedBody
from bentofs.store.formats.gap import Block, Gap
from bentofs.store.util.aligned_buffer import page_buffer
from bentofs.store.util.cancel import CancelTokens, holding, refuse_if_stopped, take

_STEP = 1 << 20  # bytes read and hashed at a time, while the processor's cache has them
_SMALL = 1 << 20  # bytes: contents up to this size take no turn


class PartBuffers:
    """The buffers of one client."""

    def __init__(self, count: int) -> None:
        """`count`: of large contents at a time."""
        self._turns = threading.BoundedSemaphore(count)
        self._idle: deque[memoryview] = deque(maxlen=count)

    @contextmanager
    def filled(self, content: Content, start: int, length: int, stops: CancelTokens) -> Iterator[HashedBody]:
        """Give [start, start + length) of a content as a body, for the time of the context.

        Raises:
            StoreError: raised by the content.
            CancelledError: one of `stops` is set.
        """
        if length <= _SMALL:
            yield _read(content, start, memoryview(bytearray(length)), stops)
            return
        with holding(self._turns, stops):
            buffer = self._buffer(length)
            try:
                yield _read(content, start, buffer[:length], stops)
            finally:
                self._idle.append(buffer)

    def new_part(self, number: int, length: int, stops: CancelTokens) -> Part:
        """Return an empty part of a stream, whose buffer counts until it is freed. Raises CancelledError if one of
        `stops` is set."""
        take(self._turns, stops)
        buffer = self._buffer(length)

        def free() -> None:
            self._idle.append(buffer)
            self._turns.release()

        return Part(number, buffer[:length], free)

    def clear(self) -> None:
        """Free the buffers that are not in use."""
        self._idle.clear()

    def _buffer(self, length: int) -> memoryview:
        try:
            buffer = self._idle.pop()
        except IndexError:
            return page_buffer(length)
        return buffer if len(buffer) >= length else page_buffer(length)


class Part:
    """A part of a stream that is cut into parts."""

    def __init__(self, number: int, view: memoryview, free: Callable[[], None]) -> None:
        """`number`: the first part's is 1. `view`: of the part's length, to be filled. `free`: gives it back."""
        self.number = number
        self.view = view
        self.free = free
        self.filled = 0  # bytes from the start, gaps included
        self.gaps = 0  # that are still open

    @property
    def is_whole(self) -> bool:
        return self.filled == len(self.view) and not self.gaps

    def body(self) -> HashedBody:
        """Return the part as the body of a request."""
        view = self.view[: self.filled]
        return HashedBody(view, hashlib.md5(view, usedforsecurity=False).hexdigest(), hashlib.sha256(view).hexdigest())


class PartCutter:
    """Cuts a stream into parts of one length. A part is whole once it is full and no gap in it is open.

    At most two parts wait for a gap: the one that is being filled, and one in which the last gap began."""

    def __init__(self, new_part: Callable[[int], Part]) -> None:
        """`new_part`: makes the part with a number."""
        self._new_part = new_part
        self._count = 0
        self._parts: list[Part] = []  # those that are not whole; the last one is being filled
        self._gap: Gap | None = None
        self._places: list[tuple[Part, int, int]] = []  # of the gap: parts, starts in them, lengths

    def cut(self, blocks: Iterable[Block]) -> Generator[Part, None, None]:
        """Yield the parts as soon as each is whole. Whoever takes a part frees it."""
        try:
            for block in blocks:
                self._fill_gap()
                yield from self._whole()
                if isinstance(block, Gap):
                    self._gap = block
                    self._places = list(self._room(block.length))
                    for part, _, _ in self._places:
                        part.gaps += 1
                    continue
                at = 0
                for part, start, length in self._room(len(block)):
                    part.view[start : start + length] = block[at : at + length]
                    at += length
                    yield from self._whole()
            self._fill_gap()
            while self._parts:
                yield self._parts.pop(0)
        finally:
            for part in self._parts:
                part.free()

    def _room(self, length: int) -> Iterator[tuple[Part, int, int]]:
        """Yield places for so many bytes, part by part."""
        while length:
            if not self._parts or self._parts[-1].filled == len(self._parts[-1].view):
                self._count += 1
                self._parts.append(self._new_part(self._count))
            part = self._parts[-1]
            start, count = part.filled, min(length, len(part.view) - part.filled)
            part.filled += count
            length -= count
            yield part, start, count

    def _fill_gap(self) -> None:
        if self._gap is None or self._gap.content is None:
            return
        at = 0
        for part, start, length in self._places:
            part.view[start : start + length] = self._gap.content[at : at + length]
            part.gaps -= 1
            at += length
        self._gap = None

    def _whole(self) -> Iterator[Part]:
        for part in [part for part in self._parts if part.is_whole]:
            self._parts.remove(part)
            yield part


def _read(content: Content, start: int, view: memoryview, stops: CancelTokens) -> HashedBody:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for at in range(0, len(view), _STEP):
        refuse_if_stopped(stops)
        part = view[at : at + _STEP]
        content.read_into([part], start + at)
        md5.update(part)
        sha256.update(part)
    return HashedBody(view, md5.hexdigest(), sha256.hexdigest())
