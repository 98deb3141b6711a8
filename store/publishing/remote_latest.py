"""The `latest` file of a remote store. Several hosts may change it at once. So each write is on the condition that the
file is still the one that was read.

Threading: any thread.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from bentofs.store.catalog.latest import next_latest
from bentofs.store.catalog.scanner import LATEST
from bentofs.store.clients.objects import WritableObjects
from bentofs.store.errors import ConditionFailedError, RemoteNotFoundError
from bentofs.store.model.tag import MAX_LENGTH, Tag
from bentofs.store.staging.model import Staged
from bentofs.store.storage.remote import RemoteStorage

log = logging.getLogger(__name__)

_ATTEMPTS = 10  # while others write it


def move_latest(storage: RemoteStorage, objects: WritableObjects, staged: Staged, *, move: bool) -> None:
    """Make a new version the latest, if the rule says so."""
    tag: Tag = staged.info.tag
    key = f"{tag.name}/{LATEST}"
    storage.listings.expire(tag.name)
    if storage.listings.list_now(f"{key}/"):  # a version named `latest`; then BentoML could not write the file either
        return

    def attempt() -> None:
        """Update `latest` once. Raises ConditionFailedError: another host changed it."""
        named, etag = None, ""
        with suppress(RemoteNotFoundError):
            found, _ = objects.find(key)
            etag = found.etag
            content = objects.read(found, 0, found.size) if found.size else b""
            named = content[: 2 * MAX_LENGTH].decode(errors="replace").strip()
        if named is not None and not move:
            return
        chosen = next_latest(storage, tag, staged.info.creation_time, named)
        if chosen is not None and chosen != named:
            objects.put(key, chosen.encode(), only_new=not etag, only_if=etag)

    for _ in range(_ATTEMPTS):
        with suppress(ConditionFailedError):
            attempt()
            return
    log.warning(
        "%s is in the store, but its `latest` was not updated: other hosts change the `latest` of %s too often",
        tag,
        tag.name,
    )
