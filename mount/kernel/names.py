"""Names as the kernel gives them: bytes, whose length file systems must check."""

from __future__ import annotations

import errno
import os

_NAME_MAX = 255  # bytes


def decoded(path: bytes) -> str:
    """Return a name, or a path, as text.

    Raises:
        OSError: ENAMETOOLONG: the name, or the last one of the path, is too long.
    """
    if len(path) > _NAME_MAX and len(path) - (path.rfind(b"/") + 1) > _NAME_MAX:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return os.fsdecode(path)
