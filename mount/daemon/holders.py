"""Find the programs that keep a mount busy: those with a file or a working directory in it.

Only the links in /proc are read. A look at the mount itself could hang.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bentofs.mount.kernel.mount_table import mountpoints_below

_PLACES = ("cwd", "root", "exe")
_MAPPED = "map_files"


class Holder(NamedTuple):
    """A program that keeps a mount busy."""

    pid: int
    program: str  # its name, as the kernel keeps it
    path: str  # below the mountpoint; "" for the mountpoint itself
    writes: bool  # it has a file open to write


def holders_of(real: str) -> list[Holder]:
    """Return one holder for each program that keeps the mount at a real path busy, and that this user may look into.
    Files that are written come before others of the same program."""
    found = []
    for entry in sorted(filter(str.isdigit, os.listdir("/proc")), key=int):
        with suppress(OSError):  # the process has ended, or is another user's
            held = sorted(_held_by(entry, real), key=lambda path_writes: not path_writes[1])
            if held:
                name = Path(f"/proc/{entry}/comm").read_text(errors="replace").rstrip("\n")
                found.append(Holder(int(entry), name, *held[0]))
    return found


def describe(real: str, holders: list[Holder]) -> str:
    """Return a sentence's part that names the holders, else the mounts below, else what can be said."""
    if holders:
        shown = [f"{holder.program} (process {holder.pid}) {_does(holder)}" for holder in holders[:3]]
        more = [f"{len(holders) - 3} more"] if len(holders) > 3 else []
        return ", ".join([*shown, *more])
    below = mountpoints_below(real)
    if below:
        return f"{below[0]} is mounted in it"
    return "a program of another user, or one that has just closed a file, keeps it busy"


def _does(holder: Holder) -> str:
    if not holder.path:
        return "works in it"
    return f"{'writes' if holder.writes else 'has open'} {holder.path}"


def _held_by(pid: str, real: str) -> Iterator[tuple[str, bool]]:
    """Yield the paths that a process holds below a real path, and whether it writes there."""
    for name in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # closed meanwhile
            path = _below(real, os.readlink(f"/proc/{pid}/fd/{name}"))
            if path is not None:
                yield path, _is_written(pid, name)
    for place in _PLACES:
        with suppress(OSError):  # a thread of the kernel
            path = _below(real, os.readlink(f"/proc/{pid}/{place}"))
            if path is not None:
                yield path, False
    with suppress(OSError):  # older kernels let only root look
        for name in os.listdir(f"/proc/{pid}/{_MAPPED}"):
            path = _below(real, os.readlink(f"/proc/{pid}/{_MAPPED}/{name}"))
            if path is not None:
                yield path, False


def _below(real: str, path: str) -> str | None:
    path = path.removesuffix(" (deleted)")
    if path == real:
        return ""
    return path.removeprefix(f"{real}/") if path.startswith(f"{real}/") else None


def _is_written(pid: str, descriptor: str) -> bool:
    for line in Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "flags":
            return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False
