"""Trouble with servers: what is tried again and how often, and the sentence that a user reads in the end.

Exceptions of botocore, aiohttp and paramiko are told by their names, so that no export to a folder loads them.

Threading: functions without state.
"""

from __future__ import annotations

import errno
import ftplib
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from store.errors import CancelledError, NoSpaceError, RemoteDeniedError, RemoteError, RemoteNotFoundError, StoreError
from store.location import Location
from store.text import printable

log = logging.getLogger(__name__)

TRIES = 5
CONNECT_SECONDS = 10.0  # for a connection to be made
SILENCE_SECONDS = 30.0  # after which a server that neither takes nor gives a byte counts as hung
_FIRST_PAUSE = 0.5  # seconds; doubled each time
_POLL_SECONDS = 0.2
_MAX_REASON = 300  # characters
_PASSING = (
    errno.EBUSY,  # what s3fs makes of 503
    errno.EREMOTEIO,  # and of 500
    errno.EPIPE,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
)
_PASSING_NAMES = (
    "HTTPClientError",  # botocore
    "EndpointConnectionError",
    "ResponseParserError",
    "ClientError",  # aiohttp; botocore's has a response
    "SSHException",  # paramiko
    "NoValidConnectionsError",
)
_DENIED_NAMES = (
    "NoCredentialsError",  # botocore
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "AuthenticationException",  # paramiko
    "BadHostKeyException",
)

Result = TypeVar("Result")
Stops = Sequence[threading.Event]  # set by whoever does not want it any more


def retry(action: Callable[[], Result], location: Location, stops: Stops = ()) -> Result:
    """What `action` gives, tried again while it fails in a way that may pass, until one of `stops` is set.

    Raises:
        CancelledError: one was set while there was something to wait for.
        StoreError: a sentence about `location`.
    """
    for number in range(1, TRIES + 1):
        try:
            return action()
        except Exception as error:
            if number == TRIES or not may_pass(error):
                raise sentence_for(error, location) from error
            pause(number, error, location, stops)
    raise AssertionError("unreachable")


def pause(number: int, error: BaseException, location: Location, stops: Stops = ()) -> None:
    """Wait before the next try; raises CancelledError once one of `stops` is set."""
    log.info("%s: try %d failed, trying again: %s", location.shown, number, _reason(error, location))
    end = time.monotonic() + _FIRST_PAUSE * 2 ** (number - 1) * random.uniform(0.8, 1.2)
    while (left := end - time.monotonic()) > 0:
        refuse_if_stopped(stops)
        time.sleep(min(left, _POLL_SECONDS))


def refuse_if_stopped(stops: Stops) -> None:
    """Raises CancelledError if one of them is set."""
    if any(stop.is_set() for stop in stops):
        raise CancelledError("it was given up")


@contextmanager
def told(location: Location) -> Iterator[None]:
    """Within this, what a server's library raises becomes a sentence about `location`."""
    try:
        yield
    except Exception as error:
        raise sentence_for(error, location) from error


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, StoreError):
        return False
    names = _names(error)
    if _is_denied(error, names):
        return False
    status = _status(error)
    if status:
        return status >= 500 or status in (408, 429)
    if isinstance(error, ftplib.Error):
        return isinstance(error, (ftplib.error_temp, ftplib.error_proto)) and not str(error).startswith("452")
    if isinstance(error, (TimeoutError, socket.timeout, ConnectionError, EOFError, socket.gaierror)):
        return True
    if isinstance(error, OSError) and error.errno in _PASSING:
        return True
    return any(name in names for name in _PASSING_NAMES) or "TimeoutError" in names


def sentence_for(error: BaseException, location: Location) -> StoreError:
    """An error of a server's library as one of ours."""
    if isinstance(error, StoreError):
        return error
    reason, shown = _reason(error, location), location.shown
    names = _names(error)
    if _is_denied(error, names):
        return RemoteDeniedError(f"{shown}: the server does not allow it, or not with these credentials: {reason}")
    text = str(error)
    if isinstance(error, FileNotFoundError) or _status(error) == 404:
        return RemoteNotFoundError(f"{shown} is not there: {reason}")
    if isinstance(error, ftplib.error_perm) and text.startswith("550"):
        return RemoteNotFoundError(f"{shown} is not there, or is not for you to use: {reason}")
    is_full = isinstance(error, ftplib.Error) and text.startswith(("452", "552"))
    if is_full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return NoSpaceError(f"{shown} cannot be written: no space is left there: {reason}")
    if may_pass(error):
        return RemoteError(f"{shown} could not be reached, or broke off again and again: {reason}")
    return RemoteError(f"{shown}: the server refuses: {reason}")


def _is_denied(error: BaseException, names: set[str]) -> bool:
    if isinstance(error, ftplib.error_perm):
        return str(error).startswith(("530", "532", "533"))
    return (
        isinstance(error, PermissionError)
        or any(name in names for name in _DENIED_NAMES)
        or _status(error) in (401, 403)
    )


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _status(error: BaseException | None) -> int:
    """The status of HTTP: botocore's, which s3fs hides behind an OSError of its own, or aiohttp's. 0 for none."""
    for _ in range(3):
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status if isinstance(status, int) else 0
        status = getattr(error, "status", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ if error is not None else None
    return 0


def _reason(error: BaseException, location: Location) -> str:
    """What the error says, as far as it may be shown."""
    text = " ".join(str(error).split()) or type(error).__name__
    for secret in sorted(location.secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return printable(text)[:_MAX_REASON]
