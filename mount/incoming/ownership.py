"""Ownership: the owners of the files and directories in a spool. Only root may change an owner on disk. For any
other user who mounts with --allow-other, the owners are kept in memory, for as long as the mount lives.

Knows no FUSE. Threading: any thread. The thread that makes a file must set its owner before others look at it.
"""

from __future__ import annotations

import os
import threading

_KEPT = 50_000  # most files and directories of others to remember; beyond this the mount's owner gets the oldest


class Ownership:
    """The owners of the files in one spool."""

    def __init__(self) -> None:
        self.user = os.geteuid()  # owner of all that belongs to nobody else
        self._lock = threading.Lock()
        self._others: dict[int, int] = {}  # inode -> uid

    def give(self, target: int | str, uid: int) -> None:
        """Set the owner of a new file or directory, given by its descriptor or path."""
        if self.user == 0:
            if uid:
                os.chown(target, uid, -1)  # so the owner survives a crash
            return
        inode = os.stat(target).st_ino
        with self._lock:
            self._others.pop(inode, None)  # of a file that has gone
            if uid != self.user:
                self._others[inode] = uid
            if len(self._others) > _KEPT:
                del self._others[next(iter(self._others))]

    def of(self, look: os.stat_result) -> int:
        """Return the uid of the owner of a file or directory."""
        return self._others.get(look.st_ino, look.st_uid)
