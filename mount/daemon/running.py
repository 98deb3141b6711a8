"""Find the daemon of a mount, and its log."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bentofs.mount.kernel.mount_table import DEVICE, mount_at, real_path
from bentofs.store import paths as home

END_SECONDS = 9.0  # from a signal to a daemon's end
FINISH_SECONDS = 60.0  # how long imports in the background may go on after an unmount


def state_folder() -> Path:
    """Return the state directory. Make it if it is missing, for this user only.

    Raises:
        NoHomeError: there is no home.
        PermissionError: it belongs to another user, for example under sudo with the old HOME.
    """
    folder = home.state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise PermissionError(
            f"{folder} belongs to user {owner}, not to you: set XDG_STATE_HOME to a directory of yours"
        )
    return folder


def log_path(mountpoint: str) -> Path:
    """Return the path of the log of a mount in the background."""
    return state_folder() / f"{hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]}.log"


class RunningDaemon(NamedTuple):
    """A process that serves a mount, or by HTTP."""

    pid: int
    started: int  # clock ticks since boot; a later process with the same pid has another value

    @classmethod
    def at(cls, mountpoint: str) -> RunningDaemon | None:
        """Find the daemon of the topmost mount at a real path. Return None if there is none, or if it is another
        user's.

        The daemon is found by its command line: it does not matter who started it or where its log is. A daemon that
        was unmounted lazily may still serve open files there. The youngest one serves the topmost mount.
        """
        mount = mount_at(mountpoint)
        if mount is None:
            return None
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):  # the process has ended, or is another user's
                    if _serves(int(entry), mountpoint) and mount_at(mountpoint, entry) == mount:
                        started = _start_of(int(entry))
                        found += [cls(int(entry), started)] if started is not None else []
        return max(found, key=lambda daemon: daemon.started, default=None)

    @classmethod
    def of(cls, pid: int) -> RunningDaemon | None:
        """Return the daemon with this pid; None if it has ended."""
        started = _start_of(pid)
        return None if started is None else cls(pid, started)

    def start_time(self) -> float:
        """Return when the daemon began, in seconds since 1970."""
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return boot + self.started / os.sysconf("SC_CLK_TCK")

    def is_alive(self) -> bool:
        """Tell whether the daemon still runs."""
        return _start_of(self.pid) == self.started


def _serves(pid: int, mountpoint: str) -> bool:
    """Tell whether a process looks like our daemon for this mountpoint."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    if b"mount" not in arguments or not _holds_device(pid):
        return False
    if os.fsencode(mountpoint) in arguments:
        return True
    begin = os.readlink(f"/proc/{pid}/cwd")
    return any(
        real_path(os.path.join(begin, os.fsdecode(argument))) == mountpoint for argument in arguments if argument
    )


def _holds_device(pid: int) -> bool:
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            if os.readlink(f"/proc/{pid}/fd/{descriptor}") == DEVICE:
                return True
    return False


def _start_of(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot. None if there is no such process, or if it is a
    zombie."""
    try:
        # The name, in parentheses, may hold any character. So count the fields from its end (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
