"""Map the store's exceptions to errno values (for the mount) and to exit statuses (for the command line). Users find
the first table in `mount/SEMANTICS.md`, the second one in `README.md`."""

from __future__ import annotations

import errno
import logging
import threading
import time

from cachetools import LRUCache

from bentofs.store.errors import (
    AlteredModelError,
    BadLocationError,
    BadModelError,
    BadTagError,
    CancelledError,
    DamagedArchiveError,
    InUseError,
    MissingStoreError,
    ModelExistsError,
    NoHomeError,
    NoSpaceError,
    NotFoundError,
    RemoteDeniedError,
    RemoteError,
    SourceChangedError,
    StagingError,
    StoreUnreadableError,
    StoreUnwritableError,
    TargetExistsError,
    TooBigError,
)

log = logging.getLogger(__name__)


class CannotMountError(Exception):
    """A mount or an unmount failed. The text is the sentence that the user reads; `status`: the exit status."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class ConfigError(CannotMountError):
    """The configuration file is wrong."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, 2)


_REPEAT_SECONDS = 60.0  # a broken store fails every request with the same sentence

# A subclass comes before its base: the first match counts.
_ERRNOS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, errno.ENOENT),
    (BadTagError, errno.EINVAL),
    (BadLocationError, errno.EINVAL),
    (BadModelError, errno.EINVAL),
    (SourceChangedError, errno.ESTALE),
    (RemoteDeniedError, errno.EACCES),
    (StoreUnreadableError, errno.EIO),
    (StoreUnwritableError, errno.EIO),
    (StagingError, errno.EIO),
    (NoHomeError, errno.EIO),
    (AlteredModelError, errno.EIO),
    (DamagedArchiveError, errno.EBADMSG),
    (ModelExistsError, errno.EEXIST),
    (TargetExistsError, errno.EEXIST),
    (TooBigError, errno.EFBIG),
    (NoSpaceError, errno.ENOSPC),
    (CancelledError, errno.ECANCELED),
    (InUseError, errno.EBUSY),
)

INTERRUPTED = 130  # the exit status that shells give for Ctrl-C

# Subclasses come first here, too. All other errors give 1: the store or this machine fails, or something changed
# meanwhile.
_EXIT_STATUSES: tuple[tuple[type[BaseException], int], ...] = (
    (BadLocationError, 2),
    (BadTagError, 2),
    (NotFoundError, 3),
    (ModelExistsError, 4),
    (TargetExistsError, 4),
    (DamagedArchiveError, 5),
    (AlteredModelError, 5),
    (BadModelError, 5),
    (TooBigError, 5),
    (NoSpaceError, 6),
    (MissingStoreError, 3),
    (RemoteDeniedError, 8),
    (RemoteError, 7),
    (CancelledError, INTERRUPTED),
)

_last_logged: LRUCache[str, float] = LRUCache(1000)
_last_logged_lock = threading.Lock()


def errno_of(error: BaseException, operation: str) -> int:
    """Return the errno that an operation answers for an exception, always above 0. Log unexpected exceptions."""
    for kind, number in _ERRNOS:
        if isinstance(error, kind):
            if number in (errno.EIO, errno.EACCES):
                _log_now_and_then(f"{operation}: {error}")
            return number
    # fusepy turns an OSError without errno into the end of the file. So such an error must never reach it.
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno > 0:
        return error.errno
    log.error("%s failed unexpectedly", operation, exc_info=error)
    return errno.EIO


def exit_status_of(error: BaseException) -> int:
    """Return the exit status of a command for an exception, always above 0."""
    return next((status for kind, status in _EXIT_STATUSES if isinstance(error, kind)), 1)


def _log_now_and_then(sentence: str) -> None:
    now = time.monotonic()
    with _last_logged_lock:
        if now - _last_logged.get(sentence, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return
        _last_logged[sentence] = now
    log.error("%s", sentence)
