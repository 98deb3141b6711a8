"""Stops: how whoever started something that takes long has it end soon."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from store.errors import CancelledError

Stops = Sequence[threading.Event]  # set by whoever does not want it any more


def refuse_if_stopped(stops: Stops) -> None:
    """Raises CancelledError if one of them is set."""
    if any(stop.is_set() for stop in stops):
        raise CancelledError("it was given up")
