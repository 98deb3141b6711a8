"""Check that a server heeds the conditions of writes. Without them, two hosts could write one model at once."""

from __future__ import annotations

import secrets
from contextlib import suppress

from bentofs.store.clients.objects import WritableObjects
from bentofs.store.errors import ConditionFailedError, StoreUnwritableError
from bentofs.store.storage.manifest import PROBE_SUFFIX


def check_conditional_writes(objects: WritableObjects) -> None:
    """Try the server's conditional writes with an object of our own.

    Raises:
        StoreUnwritableError: the server ignores the conditions.
        RemoteDeniedError, RemoteError: objects cannot be written now.
    """
    key = f".{secrets.token_hex(8)}{PROBE_SUFFIX}"

    def put(*, only_new: bool = False, only_if: str = "") -> bool:
        """Tell whether the server heeded the condition: the object is there, and has another ETag."""
        with suppress(ConditionFailedError):
            objects.put(key, b"probe", only_new=only_new, only_if=only_if)
            return False
        return True

    try:
        put()
        heeded = put(only_new=True) and put(only_if="0" * 32)
    finally:
        objects.delete([key])
    if not heeded:
        raise StoreUnwritableError(
            f"the server of {objects.location} ignores conditional writes (If-None-Match, If-Match), without which two "
            "hosts could write the same model at once"
        )
