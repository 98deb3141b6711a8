"""Which mounts run: one small file for each, in the user's state directory, beside its log."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs


def state_folder() -> Path:
    """Where the files lie; made when missing, for this user only.

    Raises:
        PermissionError: it belongs to another user, as under sudo with the old HOME.
    """
    try:
        folder = Path(platformdirs.user_state_dir("bentofs"))
    except RuntimeError:
        raise PermissionError("you have no home directory: set XDG_STATE_HOME to a folder of yours") from None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise PermissionError(f"{folder} belongs to user {owner}, not to you: set XDG_STATE_HOME to a folder of yours")
    return folder


def log_path(mountpoint: str) -> Path:
    """The log of a mount that runs in the background."""
    return state_folder() / f"{_key(mountpoint)}.log"


@dataclass(frozen=True)
class RunningMount:
    """One daemon."""

    mountpoint: str
    store: str
    pid: int
    started: int  # clock ticks since boot: tells the process from a later one with its number

    @classmethod
    def of_this_process(cls, mountpoint: str, store: str) -> RunningMount:
        return cls(mountpoint, store, os.getpid(), _start_of(os.getpid()) or 0)

    @classmethod
    def at(cls, mountpoint: str) -> RunningMount | None:
        """The living daemon of a mountpoint, if this user started one."""
        with suppress(OSError, ValueError, TypeError):
            found = cls(**json.loads(_path(mountpoint).read_text()))
            if found.is_alive():
                return found
        return None

    def is_alive(self) -> bool:
        """Whether the daemon still runs."""
        return _start_of(self.pid) == self.started

    def write(self) -> None:
        """Tell others of this mount."""
        path = _path(self.mountpoint)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self)))
        new.replace(path)

    def remove(self) -> None:
        """Take it back."""
        with suppress(OSError):  # it will be seen that the process has gone
            _path(self.mountpoint).unlink(missing_ok=True)


def _path(mountpoint: str) -> Path:
    return state_folder() / f"{_key(mountpoint)}.json"


def _key(mountpoint: str) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]


def _start_of(pid: int) -> int | None:
    """When a process began; None when there is no such process, or it has ended and nobody has taken note yet."""
    try:
        # The name, in parentheses, may hold anything; the fields are counted from its end (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
