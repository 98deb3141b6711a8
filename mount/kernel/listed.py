"""Listed: the subdirectories that the last listing told of. A program that lists a whole tree opens them next, and each
path would be looked up again from the top.

Threading: any thread. A listing takes the place of the one before it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from bentofs.mount.view.nodes import Folder

_SECONDS = 0.1  # for which a listing stands for a look at its subdirectories: this adds to the catalogue's delay
_KEPT = 8  # subdirectories of one listing: they hold models in memory


class Listed:
    """The subdirectories of the directory that was listed last."""

    def __init__(self) -> None:
        self._last: tuple[float, Mapping[str, Folder]] = (0.0, {})  # when they were listed (monotonic), and by path

    def keep(self, path: str, folders: Mapping[str, Folder]) -> None:
        """Keep the subdirectories of the directory at `path`, by name, if there are any, but not many."""
        if folders and len(folders) <= _KEPT:
            above = path.rstrip("/")
            self._last = time.monotonic(), {f"{above}/{name}": folder for name, folder in folders.items()}

    def find(self, path: str) -> Folder | None:
        """Return the subdirectory at a path, if it was listed a moment ago."""
        at, folders = self._last
        return folders.get(path) if time.monotonic() - at < _SECONDS else None
