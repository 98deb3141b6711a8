"""The binding to libfuse 2: function signatures, and C structures read and written. Only this module imports fusepy.

Of fusepy this uses the loaded library and the structures. Its `FUSE` class is not used, for three measured reasons. It
makes a Python thread state for every callback and drops it again. It copies every read through a `bytes`. It turns an
OSError without errno that escapes an operation into a clean end of file (fusepy #124, #142).

Pointers stay plain numbers: ctypes would make an object for each. Threading: any thread. A callback's arguments belong
to libfuse, and are valid until the callback returns.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

import fuse

_int, _pointer, _text = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
_size, _offset = ctypes.c_size_t, ctypes.c_int64
_FILLER = ctypes.CFUNCTYPE(_int, _pointer, _text, _pointer, _offset)
CALLBACKS: dict[str, Any] = {
    "getattr": ctypes.CFUNCTYPE(_int, _text, _pointer),
    "fgetattr": ctypes.CFUNCTYPE(_int, _pointer, _pointer, _pointer),
    "readlink": ctypes.CFUNCTYPE(_int, _text, _pointer, _size),
    "opendir": ctypes.CFUNCTYPE(_int, _text, _pointer),
    "readdir": ctypes.CFUNCTYPE(_int, _pointer, _pointer, _FILLER, _offset, _pointer),
    "releasedir": ctypes.CFUNCTYPE(_int, _pointer, _pointer),
    "open": ctypes.CFUNCTYPE(_int, _text, _pointer),
    "read": ctypes.CFUNCTYPE(_int, _pointer, _pointer, _size, _offset, _pointer),
    "release": ctypes.CFUNCTYPE(_int, _pointer, _pointer),
    "access": ctypes.CFUNCTYPE(_int, _text, _int),
    "statfs": ctypes.CFUNCTYPE(_int, _text, _pointer),
    "unlink": ctypes.CFUNCTYPE(_int, _text),
    "create": ctypes.CFUNCTYPE(_int, _text, ctypes.c_uint, _pointer),
    "write": ctypes.CFUNCTYPE(_int, _pointer, _pointer, _size, _offset, _pointer),
    "flush": ctypes.CFUNCTYPE(_int, _pointer, _pointer),
    "fsync": ctypes.CFUNCTYPE(_int, _pointer, _int, _pointer),
    "fsyncdir": ctypes.CFUNCTYPE(_int, _pointer, _int, _pointer),
    "ftruncate": ctypes.CFUNCTYPE(_int, _pointer, _offset, _pointer),
    "truncate": ctypes.CFUNCTYPE(_int, _text, _offset),
    "fallocate": ctypes.CFUNCTYPE(_int, _pointer, _int, _offset, _offset, _pointer),
    "rename": ctypes.CFUNCTYPE(_int, _text, _text),
    "mkdir": ctypes.CFUNCTYPE(_int, _text, ctypes.c_uint),
    "rmdir": ctypes.CFUNCTYPE(_int, _text),
    "utimens": ctypes.CFUNCTYPE(_int, _text, _pointer),
    "chmod": ctypes.CFUNCTYPE(_int, _text, ctypes.c_uint),
    "chown": ctypes.CFUNCTYPE(_int, _text, ctypes.c_uint, ctypes.c_uint),
    "mknod": ctypes.CFUNCTYPE(_int, _text, ctypes.c_uint, ctypes.c_ulong),
    "symlink": ctypes.CFUNCTYPE(_int, _text, _text),
    "link": ctypes.CFUNCTYPE(_int, _text, _text),
    "getxattr": ctypes.CFUNCTYPE(_int, _text, _text, _pointer, _size),
    "listxattr": ctypes.CFUNCTYPE(_int, _text, _pointer, _size),
    "setxattr": ctypes.CFUNCTYPE(_int, _text, _text, _pointer, _size, _int),
    "removexattr": ctypes.CFUNCTYPE(_int, _text, _text),
}
# The fields that fusepy's structure lacks at its end.
_BEHIND = (
    ("poll", _pointer),
    ("write_buf", _pointer),
    ("read_buf", _pointer),
    ("flock", _pointer),
    ("fallocate", None),
)
_UTIME_NOW, _UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2  # special values of nanoseconds, utimensat(2)

Stat, StatVfs, FileInfo = fuse.c_stat, fuse.c_statvfs, fuse.fuse_file_info

_handle_of = FileInfo.fh.offset
_two_times = fuse.c_timespec * 2


def new_table() -> Any:
    """Return an empty table of libfuse's callbacks: fusepy's structure with our signatures, and with the fields that
    libfuse 2.9 has after it."""
    fields = [
        (name, CALLBACKS.get(name, kind), *rest) for name, kind, *rest in (*fuse.fuse_operations._fields_, *_BEHIND)
    ]
    return type("fuse_operations", (ctypes.Structure,), {"_fields_": fields})()


class LibfuseMount:
    """A mount of libfuse, from `mount` until `tear_down`."""

    def __init__(self, handle: int, mountpoint: ctypes.c_void_p, *kept: object) -> None:
        """`kept`: objects that must live as long as the mount."""
        self._handle = handle
        self._mountpoint = mountpoint
        self._kept = kept
        self._session = _library.fuse_get_session(handle)

    @classmethod
    def mount(cls, arguments: Sequence[str], table: Any) -> LibfuseMount | None:
        """Mount. Return None if libfuse refuses; it has then printed the reason on standard error.

        `arguments`: a command line. `table`: from `new_table`.
        """
        encoded = [os.fsencode(argument) for argument in arguments]
        argv = (ctypes.c_char_p * len(encoded))(*encoded)
        mountpoint, multithreaded = ctypes.c_void_p(), ctypes.c_int()
        handle = _library.fuse_setup(
            len(encoded),
            argv,
            ctypes.byref(table),
            ctypes.sizeof(table),
            ctypes.byref(mountpoint),
            ctypes.byref(multithreaded),
            None,
        )
        return cls(handle, mountpoint, table, argv) if handle else None

    def serve(self) -> None:
        """Serve requests until the mount ends."""
        _library.fuse_session_loop(self._session)

    def one_by_one(self) -> Callable[[], bool]:
        """Return a function that serves one request, for one thread. It returns False when the mount has ended.
        libfuse's own loop would never release a thread."""
        session = self._session
        channel = _library.fuse_session_next_chan(session, None)
        size = _library.fuse_chan_bufsize(channel)
        buffer = ctypes.create_string_buffer(size)

        def serve_one() -> bool:
            at = ctypes.c_void_p(channel)
            received = _library.fuse_chan_recv(ctypes.byref(at), buffer, size)
            if received == -errno.EINTR:
                return True
            if received <= 0 or _library.fuse_session_exited(session):
                return False
            _library.fuse_session_process(session, buffer, received, at)
            return True

        return serve_one

    def watched(self) -> Callable[[], bool]:
        """Return a function that tells whether requests wait for a thread to take them."""
        poll = select.poll()
        poll.register(_library.fuse_chan_fd(_library.fuse_session_next_chan(self._session, None)), select.POLLIN)

        def are_waiting() -> bool:
            return any(event & select.POLLIN for _, event in poll.poll(0))

        return are_waiting

    def tear_down(self) -> None:
        """Unmount, and free libfuse's memory. Call it when no thread serves any more."""
        _library.fuse_teardown(self._handle, self._mountpoint)


def bytes_at(address: int, size: int) -> memoryview:
    """Return a view of libfuse's bytes, to read or write in place."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def calling_thread() -> int:
    """Return the kernel's number of the thread whose request is being served."""
    return int(fuse.fuse_get_context()[2])


def calling_user() -> int:
    """Return the uid of the process whose request is being served."""
    return int(fuse.fuse_get_context()[0])


def number_in(info: int) -> int:
    """Return the handle's number in a `FileInfo`."""
    return ctypes.c_uint64.from_address(info + _handle_of).value


def set_number(info: int, number: int) -> None:
    """Write a handle's number into a `FileInfo`."""
    ctypes.c_uint64.from_address(info + _handle_of).value = number


def set_time(target: Any, time_ns: int) -> None:
    """Write a time into a structure."""
    target.tv_sec, target.tv_nsec = divmod(time_ns, 1_000_000_000)


def wanted_times(times: int) -> tuple[int | None, int | None]:
    """Return the access and modification times to set, in ns. None leaves a time as it is."""
    access, modification = _two_times.from_address(times) if times else (None, None)
    return _wanted_time(access), _wanted_time(modification)


def _wanted_time(wanted: Any) -> int | None:
    if wanted is None or wanted.tv_nsec == _UTIME_NOW:
        return time.time_ns()
    return None if wanted.tv_nsec == _UTIME_OMIT else wanted.tv_sec * 1_000_000_000 + wanted.tv_nsec


def _with_signatures(library: Any) -> Any:
    """Return libfuse with the signatures that fusepy does not need."""
    library.fuse_setup.restype = _pointer
    library.fuse_setup.argtypes = [_int, _pointer, _pointer, _size, _pointer, _pointer, _pointer]
    library.fuse_get_session.restype = _pointer
    library.fuse_get_session.argtypes = [_pointer]
    library.fuse_session_loop.argtypes = [_pointer]
    library.fuse_session_exited.argtypes = [_pointer]
    library.fuse_session_next_chan.restype = _pointer
    library.fuse_session_next_chan.argtypes = [_pointer, _pointer]
    library.fuse_session_process.argtypes = [_pointer, _pointer, _size, _pointer]
    library.fuse_session_process.restype = None
    library.fuse_chan_bufsize.restype = _size
    library.fuse_chan_bufsize.argtypes = [_pointer]
    library.fuse_chan_fd.argtypes = [_pointer]
    library.fuse_chan_recv.argtypes = [_pointer, _pointer, _size]
    library.fuse_teardown.argtypes = [_pointer, _pointer]
    library.fuse_teardown.restype = None
    return library


_library = _with_signatures(fuse._libfuse)
