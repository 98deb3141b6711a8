"""When requests are repeated, and when not."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from bentofs.store.clients.retry import Retries, RetryPolicy
from bentofs.store.errors import CancelledError, RemoteDeniedError, RemoteError, TooBigError, UnreachableError
from bentofs.store.location import Location

AT = Location.parse("ftp://me:secret@host/m.tar")
POLICY = RetryPolicy(connect_seconds=1, silence_seconds=1, attempts=3, first_pause=0.001)


class Request:
    """A request that fails so many times."""

    def __init__(self, error: Callable[[], Exception], failures: int) -> None:
        self._error = error
        self._failures = failures
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        if self.count <= self._failures:
            raise self._error()
        return "answer"


def test_a_failure_that_passes() -> None:
    request = Request(ConnectionResetError, 2)
    assert Retries(POLICY).call(AT, request) == "answer"
    assert request.count == 3


def test_one_that_stays() -> None:
    request = Request(lambda: ConnectionResetError("reset, secret and all"), 99)
    with pytest.raises(UnreachableError, match=r"^ftp://host/m\.tar cannot be reached.*reset") as raised:
        Retries(POLICY).call(AT, request)
    assert request.count == 3
    assert "secret" not in str(raised.value)


def test_the_time_for_a_request_is_bounded() -> None:
    request = Request(ConnectionResetError, 1 << 30)
    begun = time.monotonic()
    with pytest.raises(UnreachableError):
        Retries(RetryPolicy(connect_seconds=1, silence_seconds=1, seconds=0.5, first_pause=0.01)).call(AT, request)
    assert request.count > 1
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("error", "kind"),
    [(PermissionError, RemoteDeniedError), (lambda: TypeError("no"), RemoteError), (TooBigError, TooBigError)],
    ids=["denied", "refused", "ours"],
)
def test_failures_that_no_retry_cures(error: Callable[[], Exception], kind: type[Exception]) -> None:
    request = Request(error, 99)
    with pytest.raises(kind):
        Retries(POLICY).call(AT, request)
    assert request.count == 1


def test_a_server_without_an_answer_is_left_alone() -> None:
    """Only requests with these retries fail at once. Another server may be well."""
    retries = Retries(replace(POLICY, respite=1000.0))
    with pytest.raises(UnreachableError):
        retries.call(AT, Request(ConnectionResetError, 99))
    request = Request(ConnectionResetError, 0)
    with pytest.raises(UnreachableError, match="cannot be reached"):
        retries.call(AT, request)
    assert request.count == 0
    assert Retries(retries.policy).call(AT, request) == "answer"


def test_a_request_that_proceeds_is_counted_anew() -> None:
    attempts = Retries(POLICY).attempts(AT)
    for _ in range(4):
        attempts.failed(ConnectionResetError())
        attempts.failed(ConnectionResetError())
        attempts.proceeded()
    attempts.failed(ConnectionResetError())
    attempts.failed(ConnectionResetError())
    with pytest.raises(UnreachableError):
        attempts.failed(ConnectionResetError())


def test_a_pause_is_cancelled() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        Retries(replace(POLICY, first_pause=1000.0, longest_pause=1000.0)).call(
            AT, Request(ConnectionResetError, 99), [stop]
        )
