"""Listed: the subdirectories that the last listing told of. A program that lists a whole tree opens them next, and each
path would be looked up again from the top.

Threading: any thread. A listing takes the place of the one before it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from bentofs.mount.view.nodes import Folder

_SECONDS = 0.1  # for which a look from the top stands for others: this adds to the catalogue's delay
_KEPT = 8  # subdirectories of one listing
_MEMORY = 1 << 20  # bytes, of the models that they hold in memory


class FoundFolder(NamedTuple):
    """A directory of the tree, and the time of the look that found it, or a directory above it (monotonic)."""

    folder: Folder
    looked: float

    @property
    def is_young(self) -> bool:
        """True if what it tells may be shown: the directory of a replaced model tells of the old one."""
        return time.monotonic() - self.looked < _SECONDS


class Listed:
    """The subdirectories of the directory that was listed last."""

    def __init__(self) -> None:
        self._last: tuple[float, Mapping[str, Folder]] = (0.0, {})  # the time of the look, and them by path

    def keep(self, path: str, folders: Mapping[str, Folder], looked: float) -> None:
        """Keep the subdirectories of the directory at `path`, by name, if there are any, but not many. `looked`: when
        that directory was found."""
        if folders and len(folders) <= _KEPT and _weight(folders) <= _MEMORY:
            above = path.rstrip("/")
            self._last = looked, {f"{above}/{name}": folder for name, folder in folders.items()}

    def find(self, path: str) -> FoundFolder | None:
        """Return the subdirectory at a path, if it was listed a moment ago."""
        looked, folders = self._last
        folder = folders.get(path)
        found = FoundFolder(folder, looked) if folder is not None else None
        return found if found is not None and found.is_young else None


def _weight(folders: Mapping[str, Folder]) -> int:
    """Return how many bytes of memory the models of some directories take."""
    subjects = [folder.subject() for folder in folders.values()]
    return sum({id(subject.model): subject.model.weight for subject in subjects if subject is not None}.values())
