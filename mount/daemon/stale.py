"""Stale mounts: a daemon that was killed leaves its mount behind, and everything on it fails with ENOTCONN.

The next daemon removes such a mount immediately before it mounts. So its mountpoint is an empty directory only for a
moment, and never when the new mount cannot come up: a mirroring tool would take that for deleted files.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import signal

from bentofs.mount.daemon.running import log_path
from bentofs.mount.errors import CannotMountError
from bentofs.mount.kernel.mount_table import AUTOFS, OUR_TYPE, Mount, UnmountError, mount_at, unmount

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0  # how long a mount may take to answer; a stopped daemon never does
_UNKNOWN = 255  # the exit status of a look that failed without errno


def is_dead(real: str, mounted: Mount) -> bool:
    """Tell whether the daemon of a mount at a real path has died. Ask the kernel, not its caches: statfs always asks
    the daemon.

    A child process asks, since the question may never be answered. For root, it asks in the name of the user who
    mounted: a mount may refuse everybody else, root too.
    """
    child = os.fork()
    if child == 0:
        os._exit(_look(real, mounted))
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], _LOOK_SECONDS)[0]:
            os.kill(child, signal.SIGKILL)  # do not wait for it: the kernel may hold it until the daemon answers
            return False
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.ENOTCONN


def remove_stale(real: str) -> None:
    """Unmount the dead mounts of ours at a real path.

    Raises:
        CannotMountError: a dead mount cannot be unmounted, or a living one came meanwhile.
    """
    if mount_at(real) is None:
        return
    # One process at a time. Otherwise one of two could remove the new mount of the other.
    with open(log_path(real), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        while (mounted := mount_at(real)) is not None and mounted.type == OUR_TYPE and is_dead(real, mounted):
            try:
                unmount(real, lazy=True)
            except UnmountError as error:
                raise CannotMountError(
                    f"{real} is a mount whose daemon has died, and it could not be unmounted: {error}"
                ) from None
            log.info("unmounted %s, whose daemon had died", real)
        if mounted is not None and mounted.type != AUTOFS:
            raise CannotMountError(f"something is mounted at {real} already: `bentofs status` shows it if it is yours")


def _look(real: str, mounted: Mount) -> int:
    """Return the errno of a look at a mount, 0 if it answers."""
    try:
        if os.geteuid() == 0 and mounted.user and mounted.group is not None:
            os.setgroups([])
            os.setresgid(mounted.group, mounted.group, mounted.group)
            os.setresuid(mounted.user, mounted.user, mounted.user)
        os.statvfs(real)
    except OSError as error:
        return error.errno or _UNKNOWN
    except BaseException:
        return _UNKNOWN
    return 0
