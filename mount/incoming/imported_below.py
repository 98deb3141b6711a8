"""ImportedBelow: the archives that lay in directories and were imported as models of their own. If their directory gets
a `model.yaml` later, it is not whole any more.

Threading: the spool's lock guards it (`SpoolNames.imported_below`).
"""

from __future__ import annotations

from cachetools import LRUCache

_KEPT = 10_000


class ImportedBelow:
    """The paths of the archives, of one spool."""

    def __init__(self) -> None:
        self._paths: LRUCache[str, bool] = LRUCache(_KEPT)

    def add(self, path: str) -> None:
        """Add an archive, unless it lay at the top."""
        if "/" in path:
            self._paths[path] = True

    def find(self, folder: str) -> str | None:
        """Return the path of an archive below a directory, or None."""
        return next((known for known in self._paths if known.startswith(f"{folder}/")), None)

    def forget(self, folder: str) -> None:
        """Forget the archives of a directory that is gone."""
        for alone in [known for known in self._paths if known.startswith(f"{folder}/")]:
            del self._paths[alone]

    def move(self, old: str, new: str) -> None:
        """Move the archives of a directory that was renamed."""
        self.forget(new)
        for alone in [known for known in self._paths if known.startswith(f"{old}/")]:
            del self._paths[alone]
            self._paths[new + alone[len(old) :]] = True
