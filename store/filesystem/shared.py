"""Libraries that file systems share: one for each store and process, closed with the last file system that uses it.

fsspec makes one file system for each thread that asks for one. Each library has its own threads and caches.

Threading: any thread.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import ExitStack
from typing import NamedTuple

from bentofs.store.archives.compression import Compression
from bentofs.store.storage.open import StoreSpec
from bentofs.store.wiring.library import Library, opened_library


class Choice(NamedTuple):
    """A store as a user chose it. Equal choices share a library."""

    store: str
    options: str  # for the file system of a URL, as text
    timeout: float  # seconds
    compression: Compression | None


class SharedLibrary:
    """The library of one choice. It is opened when it is first used."""

    def __init__(self, spec: StoreSpec, compression: Compression | None) -> None:
        self._spec = spec
        self._compression = compression
        self._lock = threading.Lock()  # guards the field below; held while the library is opened
        self._library: Library | None = None

    def library(self) -> Library:
        """Return the open library.

        Raises:
            StoreError: there is no store, or it cannot be reached.
        """
        with self._lock:
            if self._library is None:
                stack = ExitStack()
                self._library = stack.enter_context(opened_library(self._spec, self._compression))
                weakref.finalize(self, _close, stack, os.getpid())
            return self._library


_lock = threading.Lock()  # guards the field below; never held while a library is opened
_shared: weakref.WeakValueDictionary[tuple[Choice, int], SharedLibrary] = weakref.WeakValueDictionary()


def shared_library(choice: Choice, spec: StoreSpec) -> SharedLibrary:
    """Return the library of a choice in this process. `spec`: the same choice, parsed."""
    key = choice, os.getpid()
    with _lock:
        found = _shared.get(key)
        if found is None:
            found = _shared[key] = SharedLibrary(spec, choice.compression)
        return found


def _close(stack: ExitStack, pid: int) -> None:
    if os.getpid() == pid:  # a process that was forked has no threads to end
        stack.close()
