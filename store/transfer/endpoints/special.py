"""Targets of this machine that are written into and not replaced: pipes, devices, open files of this process, mount
points.

Threading: functions without state.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time

from bentofs.store.errors import StoreUnwritableError
from bentofs.store.util.cancel import CancelTokens, refuse_if_stopped
from bentofs.store.util.display import printable

_OPEN_FILES = re.compile(r"/proc/(\d+)/(?:task/\d+/)?fd")
_MAX_LINKS = 40  # the limit of Linux
_POLL_SECONDS = 0.05
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def own_descriptor(path: str) -> int | None:
    """Return the descriptor of this process that a path stands for, such as /dev/stdout and /dev/fd/63. None for
    another path. The descriptor need not be open."""
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        found = _OPEN_FILES.fullmatch(folder)
        if found and name.isascii() and name.isdigit():
            return int(name) if found[1] == _own_number() else None
        try:
            path = os.path.join(folder, os.readlink(os.path.join(folder, name)))
        except OSError:  # the path is no link
            return None
    return None


def refuse_closed(path: str) -> None:
    """Raise StoreUnwritableError: the path stands for a descriptor of this process that is not open."""
    descriptor = own_descriptor(path)
    if descriptor is None:
        return
    try:
        os.fstat(descriptor)
    except OSError:
        raise StoreUnwritableError(f"{printable(path)} cannot be written: it is not open") from None


def is_special(path: str) -> bool:
    """Tell whether a path stands for something that takes bytes, but is no file or folder with a name."""
    if own_descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def is_mount_point(path: str) -> bool:
    """Tell whether something is mounted at a real path, such as a single file in a container. No rename replaces it."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            points = [line.split(b" ")[4] for line in file.read().split(b"\n") if line]
    except OSError:
        return False
    wanted = os.fsencode(path)
    return any(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), point) == wanted for point in points)


def open_special(path: str, stops: CancelTokens) -> int:
    """Open a pipe or device for writing. Wait until a pipe has a reader.

    Raises:
        OSError: it cannot be opened.
        CancelledError: one of `stops` was set meanwhile.
    """
    if not stat.S_ISFIFO(os.stat(path).st_mode):
        return os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            refuse_if_stopped(stops)
            time.sleep(_POLL_SECONDS)
        else:
            os.set_blocking(descriptor, True)
            return descriptor


def _own_number() -> str:
    """Return the number of this process in /proc. It may be from another namespace."""
    try:
        return os.readlink("/proc/self")
    except OSError:
        return ""
