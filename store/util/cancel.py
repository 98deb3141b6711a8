"""CancelTokens: how whoever started something that takes long has it end soon."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from bentofs.store.errors import CancelledError

CancelTokens = Sequence[threading.Event]  # set by whoever does not want it any more


def refuse_if_stopped(stops: CancelTokens) -> None:
    """Raises CancelledError if one of them is set."""
    if any(stop.is_set() for stop in stops):
        raise CancelledError("it was given up")
