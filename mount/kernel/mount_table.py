"""Find mounts in the kernel's table, and unmount. A look at a dead or stuck mount itself fails or hangs."""

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
AUTOFS = "autofs"  # a trap for the first access, over which the real mount belongs
_TOOLS = (["fusermount", "-u"], ["fusermount3", "-u"], ["umount"])  # umount: for root, where there is no fusermount
_LAZILY = {"umount": "-l"}  # the others' is -z
_BUSY = "busy"  # the tools report EBUSY by its text alone: "Device or resource busy", "target is busy"
_TOOL_SECONDS = 10.0  # how long one tool may take


class UnmountError(Exception):
    """An unmount failed. The text is the tool's message."""


class MountBusyError(UnmountError):
    """A program still has something open in the mount."""


class Mount(NamedTuple):
    """A line of the mount table."""

    device: str  # major:minor; no other living mount has it
    type: str
    user: int | None = None  # uid and gid of the user who mounted it; None for mounts that are not FUSE's
    group: int | None = None


class OurMount(NamedTuple):
    """A mount of bentofs."""

    path: str
    source: str  # the location of its store; libfuse 2 replaces some characters
    user: int | None = None  # uid and gid of the user who mounted it
    group: int | None = None


def find_helper() -> str | None:
    """Return the path of the program that mounts for ordinary users, if it is installed."""
    return next((path for name in HELPERS if (path := shutil.which(name))), None)


def real_path(mountpoint: str) -> str:
    """Return the real path of a mountpoint. realpath will not do: it looks at the mount itself."""
    path = mountpoint
    for _ in range(40):
        parent, name = os.path.split(path.rstrip("/") or "/")
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        path = os.path.join(os.path.realpath(parent), name)
        try:
            path = os.path.join(os.path.dirname(path), os.readlink(path))  # asks no file system mounted there
        except OSError:
            break
    return path


def mount_at(real: str, process: int | str = "self") -> Mount | None:
    """Return the topmost mount at a real path, in a process's view.

    Raises:
        OSError: the process has ended, or is another user's.
    """
    found = None
    with open(f"/proc/{process}/mountinfo", errors="surrogateescape", newline="\n") as table:  # "\r" may be in a name
        for line in table:
            fields = line.split(" ")  # proc_pid_mountinfo(5): a dash ends the optional fields
            if _unescaped(fields[4]) == real:
                kind, _, options = fields[fields.index("-", 6) + 1 :][:3]
                found = Mount(fields[2], kind, _number(options, "user_id"), _number(options, "group_id"))
    return found


def mountpoints_below(real: str) -> list[str]:
    """Return the paths below a real path where something is mounted."""
    with open("/proc/self/mountinfo", errors="surrogateescape", newline="\n") as table:
        paths = [_unescaped(line.split(" ")[4]) for line in table]
    return [path for path in paths if path.startswith(f"{real}/")]


def _number(options: str, name: str) -> int | None:
    match = re.search(rf"(?:^|,){name}=(\d+)(?:,|$)", options.rstrip())
    return int(match[1]) if match else None


def our_mounts() -> list[OurMount]:
    """Return the mounts of bentofs, of all users. Of several mounts at one path, only the topmost one."""
    found: dict[str, OurMount] = {}
    with open("/proc/self/mountinfo", errors="surrogateescape", newline="\n") as table:
        for line in table:
            fields = line.rstrip("\n").split(" ")
            path = _unescaped(fields[4])
            found.pop(path, None)
            kind, source, options = fields[fields.index("-", 6) + 1 :][:3]
            if kind == OUR_TYPE:
                user, group = _number(options, "user_id"), _number(options, "group_id")
                found[path] = OurMount(path, _unescaped(source), user, group)
    return list(found.values())


def count_fuse_mounts() -> int:
    """Return the number of FUSE mounts of all users, counted like fusermount."""
    with open("/proc/self/mountinfo", errors="surrogateescape", newline="\n") as table:
        kinds = [line.partition(" - ")[2].partition(" ")[0] for line in table]
    return sum(kind == "fuse" or kind.startswith("fuse.") for kind in kinds)


def read_ahead(device: str, size: int) -> None:
    """Make the kernel read `size` bytes ahead of sequential readers on a device (`Mount.device`).

    By default it asks a FUSE mount for the next 128 KiB only after the last ones, so reader and daemon wait for each
    other.

    Raises:
        OSError: only root may do this, and not in every container.
    """
    with open(f"/sys/class/bdi/{device}/read_ahead_kb", "w", encoding="ascii") as setting:
        setting.write(str(size >> 10))


def unmount(real: str, *, lazy: bool) -> None:
    """Unmount the topmost mount at a real path. `lazy`: even while it is in use; its users then get errors.

    Raises:
        MountBusyError: a program still uses it.
        UnmountError: anything else.
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
    if reasons and _BUSY in reasons[0].replace(real, ""):
        raise MountBusyError(reasons[0])
    raise UnmountError(reasons[0] if reasons else "fusermount is not installed: `apt install fuse3` first")


def _unescaped(path: str) -> str:
    """Return a path of the table without its escapes: blanks and backslashes are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
