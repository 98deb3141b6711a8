"""A clock that tests can advance, instead of sleeping."""

import time

import pytest


class Clock:
    """Real time, plus the advance; for code that calls `time.time_ns` and `time.monotonic`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead = 0.0
        wall, steady = time.time_ns, time.monotonic
        monkeypatch.setattr(time, "time_ns", lambda: wall() + int(self._ahead * 1e9))
        monkeypatch.setattr(time, "monotonic", lambda: steady() + self._ahead)

    def advance(self, seconds: float) -> None:
        self._ahead += seconds
