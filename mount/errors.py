"""The one table from the store's exceptions to errno; `mount/SEMANTICS.md` explains it to users."""

from __future__ import annotations

import errno
import logging

from store.errors import BadModelError, BadTagError, NotFoundError, SourceChangedError, StoreUnreadableError

log = logging.getLogger(__name__)

# A subclass before its base: the first match counts.
_ERRNOS: tuple[tuple[type[Exception], int], ...] = (
    (NotFoundError, errno.ENOENT),
    (BadTagError, errno.EINVAL),
    (BadModelError, errno.EINVAL),
    (SourceChangedError, errno.ESTALE),
    (StoreUnreadableError, errno.EIO),
)


def errno_of(error: BaseException, operation: str) -> int:
    """The errno that an operation answers for an exception, always above 0. What nobody expected is logged."""
    for kind, number in _ERRNOS:
        if isinstance(error, kind):
            if number == errno.EIO:
                log.error("%s: %s", operation, error)
            return number
    # fusepy turns an OSError without errno into the end of the file; it must never get there.
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno > 0:
        return error.errno
    log.error("%s failed unexpectedly", operation, exc_info=error)
    return errno.EIO
