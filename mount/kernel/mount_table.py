"""Mountpoints, by the kernel's table: a mount that is dead or stuck fails or hangs whoever looks at itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import NamedTuple

DEVICE = "/dev/fuse"
HELPERS = ("fusermount3", "fusermount")
SUBTYPE = "bentofs"
OUR_TYPE = f"fuse.{SUBTYPE}"
_TOOLS = (["fusermount", "-u"], ["fusermount3", "-u"], ["umount"])  # umount: for root, where there is no fusermount
_LAZILY = {"umount": "-l"}  # the others' is -z
_TOOL_SECONDS = 10.0  # how long one may take


class UnmountError(Exception):
    """The text is what the tool says."""


class Mount(NamedTuple):
    """A line of the table."""

    device: str  # major:minor; no other living mount has it
    type: str


def find_helper() -> str | None:
    """Return the path of the program that mounts for ordinary users, if it is installed."""
    return next((path for name in HELPERS if (path := shutil.which(name))), None)


def real_path(mountpoint: str) -> str:
    """The real path of a mountpoint. Not by realpath, which looks at the mount itself."""
    path = mountpoint
    for _ in range(40):
        parent, name = os.path.split(path.rstrip("/") or "/")
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        path = os.path.join(os.path.realpath(parent), name)
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))  # asks no file system that is mounted there
        except OSError:
            break
    return path


def mount_at(real: str, process: int | str = "self") -> Mount | None:
    """What is mounted on top at a real path, as a process sees it.

    Raises:
        OSError: the process has gone, or is another user's.
    """
    found = None
    with open(f"/proc/{process}/mountinfo", errors="surrogateescape", newline="\n") as table:  # "\r" is of a name
        for line in table:
            fields = line.split(" ")  # proc_pid_mountinfo(5): optional fields, of any number, end with a dash
            if _unescaped(fields[4]) == real:
                found = Mount(fields[2], fields[fields.index("-", 6) + 1])
    return found


def read_ahead(device: int, size: int) -> None:
    """Have the kernel read so many bytes ahead of who reads in order, on a device (`st_dev`). By itself it asks a FUSE
    mount for its next 128 KiB when it is done with those before, so that reader and daemon wait for each other.

    Raises:
        OSError: only root may, and not in every container.
    """
    with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", "w", encoding="ascii") as setting:
        setting.write(str(size >> 10))


def unmount(real: str, *, lazy: bool) -> None:
    """Unmount what is mounted on top at a real path. `lazy`: even while it is in use, whose users then get errors.

    Raises:
        UnmountError
    """
    reasons = []
    for tool in _TOOLS:
        command = [*tool, *([_LAZILY.get(tool[0], "-z")] if lazy else []), real]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=False
            )
        except FileNotFoundError:
            continue
        except subprocess.TimeoutExpired:
            reasons.append(f"{tool[0]} does not end")
            continue
        if done.returncode == 0:
            return
        reasons.append(done.stderr.strip())
    raise UnmountError(reasons[0] if reasons else "fusermount is not installed: `apt install fuse3` first")


def _unescaped(path: str) -> str:
    """A path of the table, in which blanks and backslashes are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
