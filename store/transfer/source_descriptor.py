"""An archive to import that comes from a descriptor of this process: a file, or a pipe.

Threading: any thread.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

from bentofs.store.errors import NotFoundError, StoreUnreadableError
from bentofs.store.formats.read.growing_file import WholeFile
from bentofs.store.transfer.byte_counter import Counted
from bentofs.store.transfer.endpoints.base import CHUNK
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped
from bentofs.store.util.display import printable

_LOOK_MILLISECONDS = 200  # between two checks of `stops`


class WatchedFile(WholeFile):
    """A file that reports how far it was read."""

    def __init__(self, descriptor: int, name: str, counted: Counted) -> None:
        super().__init__(descriptor)
        self._name = name
        self._counted = counted

    def read_into(self, view: memoryview, offset: int) -> int:
        with reading(self._name):
            count = super().read_into(view, offset)
        if offset + count > self._counted.total:
            self._counted(offset + count - self._counted.total)
        return count


def chunks_of(descriptor: int, name: str, stops: CancelTokens) -> Iterator[bytes]:
    """Yield the chunks of a pipe. The pipe may be silent for long: that must not keep a command from being stopped."""
    ready = select.poll()
    ready.register(descriptor, select.POLLIN)
    with reading(name):
        while True:
            while not ready.poll(_LOOK_MILLISECONDS):
                refuse_if_stopped(stops)
            chunk = os.read(descriptor, CHUNK)
            if not chunk:
                return
            yield chunk


def position_of(descriptor: int) -> int:
    """Return the position in a file; -1 for a pipe, which has none."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return -1


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn an OSError inside the context into a sentence about `path`."""
    try:
        yield
    except FileNotFoundError:
        raise NotFoundError(f"{printable(path)} is not there") from None
    except OSError as error:
        reason = os.strerror(error.errno or errno.EIO)
        raise StoreUnreadableError(f"{printable(path)} cannot be read: {reason}") from error
