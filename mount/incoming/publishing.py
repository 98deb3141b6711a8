"""Publishing: puts staged models of users into the store, by the rules that hold in `incoming/`.

Knows no FUSE. Threading: any thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from bentofs.mount.incoming.ownership import Ownership
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Outcome
from bentofs.store.transfer.importer import Importer, StagedImport
from bentofs.store.util.display import printable

log = logging.getLogger(__name__)

OnImported = Callable[[StagedImport], None]


class Publishing:
    """Publishes what users bring into one `incoming/`."""

    def __init__(self, importer: Importer, owners: Ownership, on_imported: OnImported) -> None:
        """`on_imported`: called with each model that was imported."""
        self.importer = importer
        self._owners = owners
        self._on_imported = on_imported

    def publish(self, ready: StagedImport, uid: int, *, may_replace: bool = True) -> Outcome:
        """Publish a user's model. Only a user who may move `latest` does."""
        return self.importer.publish(ready, move_latest=self._may_move_latest(uid, ready.tag), may_replace=may_replace)

    def announce(self, path: str, outcome: Outcome, ready: StagedImport, request: str | None) -> None:
        """Tell the log, and the rest of the mount, that the model of a path is in the store. `request`: the id of its
        import in the record."""
        self._on_imported(ready)
        left_out = f"; {ready.staged.left_out}" if ready.staged.left_out else ""
        log.info("%s: %s %s%s (request %s)", printable(path), ready.tag, outcome.value, left_out, request)

    def _may_move_latest(self, uid: int, tag: Tag) -> bool:
        """Return True if a user's upload may move `latest`. It may not if others brought in models of that name."""
        return uid == self._owners.user or not self.importer.has_name(tag.name)
