"""DeadProperties: the properties that clients set on files in `incoming/`. They are kept until the server ends.

Threading: the event loop's thread only.
"""

from __future__ import annotations

from collections.abc import Mapping

from cachetools import LRUCache

_RESOURCES = 1000
_MOST_EACH = 64 << 10  # bytes of one resource's properties


class TooLargeError(Exception):
    """The properties of one resource are too large."""


class DeadProperties:
    """The properties of one server, by the path below `incoming/`."""

    def __init__(self) -> None:
        self._kept: LRUCache[str, dict[str, str]] = LRUCache(_RESOURCES)

    def of(self, path: str) -> Mapping[str, str]:
        """Return the properties of a path: XML by name."""
        return self._kept.get(path, {})

    def change(self, path: str, changes: Mapping[str, str | None]) -> None:
        """Set properties, and remove those whose value is None.

        Raises:
            TooLargeError
        """
        changed = {**self.of(path), **changes}
        kept = {name: content for name, content in changed.items() if content is not None}
        if sum(len(name) + len(content) for name, content in kept.items()) > _MOST_EACH:
            raise TooLargeError
        self._kept[path] = kept

    def copy(self, old: str, new: str) -> None:
        """Copy the properties of a path and of all below it."""
        for path, kept in list(self._kept.items()):
            if path == old or path.startswith(f"{old}/"):
                self._kept[new + path[len(old) :]] = dict(kept)

    def forget(self, path: str) -> None:
        """Forget the properties of a path and of all below it."""
        for known in [known for known in self._kept if known == path or known.startswith(f"{path}/")]:
            del self._kept[known]
