"""PartBuffers: contents that are read once, hashed, and kept in memory until a server has them.

A retry sends the same bytes again, without another look at their source. The number of large buffers is bounded.

Threading: any thread.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from bentofs.store.clients.request_body import Content, HashedBody
from bentofs.store.util.aligned_buffer import page_buffer
from bentofs.store.util.cancel import CancelTokens, holding, refuse_if_stopped

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

    def clear(self) -> None:
        """Free the buffers that are not in use."""
        self._idle.clear()

    def _buffer(self, length: int) -> memoryview:
        try:
            buffer = self._idle.pop()
        except IndexError:
            return page_buffer(length)
        return buffer if len(buffer) >= length else page_buffer(length)


def _read(content: Content, start: int, view: memoryview, stops: CancelTokens) -> HashedBody:
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    for at in range(0, len(view), _STEP):
        refuse_if_stopped(stops)
        part = view[at : at + _STEP]
        content.read_into([part], start + at)
        md5.update(part)
        sha256.update(part)
    return HashedBody(view, md5.hexdigest(), sha256.hexdigest())
