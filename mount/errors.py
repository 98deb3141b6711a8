"""The one table from the store's exceptions to errno; `mount/SEMANTICS.md` explains it to users."""

from __future__ import annotations

import errno
import logging
import threading
import time

from cachetools import LRUCache

from store.errors import (
    BadModelError,
    BadTagError,
    CancelledError,
    DamagedArchiveError,
    ModelExistsError,
    NoSpaceError,
    NotFoundError,
    SourceChangedError,
    StagingError,
    StoreDeniedError,
    StoreUnreadableError,
    StoreUnwritableError,
    TooBigError,
)

log = logging.getLogger(__name__)

_REPEAT_SECONDS = 60.0  # a broken store fails every request with the same sentence

# A subclass before its base: the first match counts.
_ERRNOS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, errno.ENOENT),
    (BadTagError, errno.EINVAL),
    (BadModelError, errno.EINVAL),
    (SourceChangedError, errno.ESTALE),
    (StoreDeniedError, errno.EACCES),
    (StoreUnreadableError, errno.EIO),
    (StoreUnwritableError, errno.EIO),
    (StagingError, errno.EIO),
    (DamagedArchiveError, errno.EBADMSG),
    (ModelExistsError, errno.EEXIST),
    (TooBigError, errno.EFBIG),
    (NoSpaceError, errno.ENOSPC),
    (CancelledError, errno.ECANCELED),
)


_last_logged: LRUCache[str, float] = LRUCache(1000)
_last_logged_lock = threading.Lock()


def errno_of(error: BaseException, operation: str) -> int:
    """The errno that an operation answers for an exception, always above 0. What nobody expected is logged."""
    for kind, number in _ERRNOS:
        if isinstance(error, kind):
            if number in (errno.EIO, errno.EACCES):
                _log_now_and_then(f"{operation}: {error}")
            return number
    # fusepy turns an OSError without errno into the end of the file; it must never get there.
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno > 0:
        return error.errno
    log.error("%s failed unexpectedly", operation, exc_info=error)
    return errno.EIO


def _log_now_and_then(sentence: str) -> None:
    now = time.monotonic()
    with _last_logged_lock:
        if now - _last_logged.get(sentence, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return
        _last_logged[sentence] = now
    log.error("%s", sentence)
