"""Which daemon serves a mount, and where its log is."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bentofs.mount.kernel.mount_table import DEVICE, mount_at, real_path
from bentofs.store import paths as home


def state_folder() -> Path:
    """Where the files lie; made when missing, for this user only.

    Raises:
        NoHomeError: there is no home.
        PermissionError: it belongs to another user, as under sudo with the old HOME.
    """
    folder = home.state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise PermissionError(f"{folder} belongs to user {owner}, not to you: set XDG_STATE_HOME to a folder of yours")
    return folder


def log_path(mountpoint: str) -> Path:
    """The log of a mount that runs in the background."""
    return state_folder() / f"{hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]}.log"


class RunningDaemon(NamedTuple):
    """A process that serves a mount."""

    pid: int
    started: int  # clock ticks since boot: tells the process from a later one with its number

    @classmethod
    def at(cls, mountpoint: str) -> RunningDaemon | None:
        """The one that serves what is mounted on top at a real path, unless it is another user's.

        It is told by its command line, whoever started it and wherever its log is. One that was unmounted lazily may
        still serve open files there; the youngest is the one on top.
        """
        mount = mount_at(mountpoint)
        if mount is None:
            return None
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):  # it has gone, or is another user's
                    if _serves(int(entry), mountpoint) and mount_at(mountpoint, entry) == mount:
                        started = _start_of(int(entry))
                        found += [cls(int(entry), started)] if started is not None else []
        return max(found, key=lambda daemon: daemon.started, default=None)

    def is_alive(self) -> bool:
        """Whether the daemon still runs."""
        return _start_of(self.pid) == self.started


def _serves(pid: int, mountpoint: str) -> bool:
    """Whether a process looks like a daemon of ours on this mountpoint."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    if b"mount" not in arguments or not _holds_device(pid):
        return False
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
    """When a process began; None when there is no such process, or it has ended and nobody has taken note yet."""
    try:
        # The name, in parentheses, may hold anything; the fields are counted from its end (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
