"""Renames that replace nothing, or exchange: renameat2(2), which Python lacks.

Some file systems (FUSE without it, NFS) answer EINVAL, old kernels ENOSYS: `is_unsupported` tells.
"""

from __future__ import annotations

import ctypes
import errno
import os

_AT_FDCWD = -100
_NOREPLACE = 1
_EXCHANGE = 2


def rename_new(source: str, folder: int, name: str) -> None:
    """Rename `source` to `name` in an open folder, where nothing may stand, not even an empty folder.

    Raises:
        FileExistsError: something does.
        OSError: as rename(2); `is_unsupported` tells whether this kind of rename is missing.
    """
    _renameat2(source, folder, name, _NOREPLACE)


def exchange(source: str, folder: int, name: str) -> None:
    """Have `source` and `name` in an open folder change places, at once.

    Raises:
        FileNotFoundError: one of them is not there.
        OSError: as above.
    """
    _renameat2(source, folder, name, _EXCHANGE)


def is_unsupported(error: OSError) -> bool:
    """Whether an error of the above says that the system, or the file system, has no such rename."""
    return error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def _renameat2(source: str, folder: int, name: str, flags: int) -> None:
    if _function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source)
    if _function(_AT_FDCWD, os.fsencode(source), folder, os.fsencode(name), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, name)


def _load() -> ctypes._NamedFuncPointer | None:
    """glibc has it since 2.28, musl since 1.2.5."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        function.restype = ctypes.c_int
    return function


_function = _load()
