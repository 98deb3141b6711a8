"""Owners: whose the files and folders of a spool are. Only root may give a file away on disk; for any other user who
mounts with --allow-other it is remembered, as long as the mount lives.

Knows no FUSE. Threading: any thread; whoever makes a file gives it away before anybody else looks at it.
"""

from __future__ import annotations

import os
import threading

_KEPT = 50_000  # files and folders of others that are remembered; of more, the oldest become the owner's


class Owners:
    """The owners in one spool."""

    def __init__(self) -> None:
        self.user = os.geteuid()  # whose all is that is nobody else's
        self._lock = threading.Lock()
        self._others: dict[int, int] = {}  # inode -> uid

    def give(self, target: int | str, uid: int) -> None:
        """A new file or folder, given by its descriptor or path, belongs to a user."""
        if self.user == 0:
            if uid:
                os.chown(target, uid, -1)  # so that it is still theirs after a crash
            return
        inode = os.stat(target).st_ino
        with self._lock:
            self._others.pop(inode, None)  # of one that has gone
            if uid != self.user:
                self._others[inode] = uid
            if len(self._others) > _KEPT:
                del self._others[next(iter(self._others))]

    def of(self, look: os.stat_result) -> int:
        """The uid of whom a file or folder belongs to."""
        return self._others.get(look.st_ino, look.st_uid)
