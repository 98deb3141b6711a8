"""Recheck of a model's directory on this machine: is everything as a former walk found it?

It takes a third of the time of a walk: nothing is listed, sorted or built. A directory that has its old identity has
its old names, and each file and directory is looked at anew.
"""

from __future__ import annotations

import os
import stat

from bentofs.store.storage.base import Identity
from bentofs.store.storage.entries import Entries


def is_unchanged(folder: int, entries: Entries) -> bool:
    """Tell whether a walk would find the same entries; False if only a walk can tell. `folder`: a descriptor of the
    model's directory."""
    looks = entries.folder_looks
    if not looks or Identity.of(os.fstat(folder)) != looks[0]:
        return False
    following = iter(looks[1:])
    try:
        for path, executable, identity in entries.identities():
            look = os.stat(path, dir_fd=folder, follow_symlinks=False)
            if identity is None:
                if not stat.S_ISDIR(look.st_mode) or Identity.of(look) != next(following):
                    return False
            elif (
                look.st_ctime_ns != identity[4]
                or look.st_ino != identity[1]
                or look.st_size != identity[2]
                or look.st_mtime_ns != identity[3]
                or look.st_dev != identity[0]
                or not stat.S_ISREG(look.st_mode)
                or bool(look.st_mode & stat.S_IXUSR) is not executable
            ):
                return False
    except OSError:
        return False
    return True
