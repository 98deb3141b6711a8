"""Parts on servers: files that an export is still writing, beside their target and under a hidden name.

Each part is noted on this machine for as long as it is there (`store.clients.upload_notes`). The next export of this
user to the same server removes the parts of killed exports.

Threading: same as the endpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bentofs.store.clients.upload_notes import Unfinished
from bentofs.store.errors import StoreError
from bentofs.store.location import Location
from bentofs.store.transfer.endpoints.beside import beside
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)


class RemoteParts:
    """The parts of one endpoint."""

    def __init__(self, location: Location, remove: Callable[[str], None]) -> None:
        """`remove`: removes a file by its path, and raises a StoreError if it may still be there."""
        self._notes = Unfinished(f"{location.protocol}://{location.user or ''}@{location.host}")
        self._remove = remove
        self._is_tidied = False

    @contextmanager
    def new(self, path: str) -> Iterator[str]:
        """Give the path of a part for the target at `path`. The part is removed if the context fails. If it succeeds,
        the server can be reached, and the remains of other exports are removed too."""
        part = beside(path)
        with self._notes.noted(part, "") as forget:
            try:
                yield part
            except BaseException:
                self._try_to_remove(part, forget)
                raise
            forget()
        if not self._is_tidied:
            self._is_tidied = True
            for left, _, forget in self._notes.left_behind():
                self._try_to_remove(left, forget)

    def _try_to_remove(self, part: str, forget: Callable[[], None]) -> None:
        try:
            self._remove(part)
        except StoreError as error:  # the next export tries again
            log.info("%s, which a killed export left, could not be removed: %s", printable(part), error)
        else:
            forget()
