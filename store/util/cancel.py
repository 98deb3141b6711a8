"""CancelTokens: cancel a long operation."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bentofs.store.errors import CancelledError

CancelTokens = Sequence[threading.Event]  # set to cancel


def refuse_if_stopped(stops: CancelTokens) -> None:
    """Raise CancelledError if one of the tokens is set."""
    if any(stop.is_set() for stop in stops):
        raise CancelledError("it was cancelled")
