"""Renames that replace nothing, or that exchange two paths: renameat2(2), which Python lacks.

Some file systems (some on FUSE, NFS) fail with EINVAL, old kernels with ENOSYS: `is_unsupported` detects this.
"""

from __future__ import annotations

import ctypes
import errno
import os

_AT_FDCWD = -100
_NOREPLACE = 1
_EXCHANGE = 2


def rename_new(source: str, folder: int, name: str) -> None:
    """Rename `source` to `name` in an open directory. Nothing may exist at `name`, not even an empty directory.

    Raises:
        FileExistsError: something exists there.
        OSError: an error of rename(2); `is_unsupported` is true if this kind of rename is missing.
    """
    _renameat2(source, folder, name, _NOREPLACE)


def exchange(source: str, folder: int, name: str) -> None:
    """Exchange `source` and `name` in an open directory, atomically.

    Raises:
        FileNotFoundError: one of them is missing.
        OSError: same as `rename_new`.
    """
    _renameat2(source, folder, name, _EXCHANGE)


def is_unsupported(error: OSError) -> bool:
    """True if an error of these functions means that the system, or the file system, has no such rename."""
    return error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def _renameat2(source: str, folder: int, name: str, flags: int) -> None:
    if _function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source)
    if _function(_AT_FDCWD, os.fsencode(source), folder, os.fsencode(name), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), source, None, name)


def _load() -> ctypes._NamedFuncPointer | None:
    """Load renameat2 from the C library, if it has it: glibc since 2.28, musl since 1.2.5."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is not None:
        function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        function.restype = ctypes.c_int
    return function


_function = _load()
