"""Error classes: turn an exception of a client library into an error of `store.errors`, with a reason without secrets.

Exceptions of botocore, aiohttp, paramiko and ftplib are recognized by name, so that unused libraries are not loaded.
s3fs wraps an exception of botocore in an OSError of its own, with the original as its cause.

Threading: functions without state.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from bentofs.store.errors import (
    ConditionFailedError,
    MissingStoreError,
    NoSpaceError,
    RemoteDeniedError,
    RemoteError,
    RemoteNotFoundError,
    StoreError,
    UnreachableError,
)
from bentofs.store.formats.gap import CannotGrowError
from bentofs.store.location import Location
from bentofs.store.util.display import printable

_MAX_REASON = 300  # characters
_SHORT = 4  # characters; a shorter secret is struck out only as a whole word
_SECRETS_IN_URL = re.compile(r"""(?<=://)[^\s/"']*(?=@)|(?<=\?)[^\s"'?]*=[^\s"']*""")  # credentials, parameters
_UNKNOWN_PARAMETER = re.compile(r"unexpected keyword argument ('[^']*')")
_PASSING = (
    errno.EBUSY,  # s3fs raises it for 503
    errno.EREMOTEIO,  # and for 500
    errno.EPIPE,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ETIMEDOUT,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
)
_PASSING_NAMES = {
    "HTTPClientError",  # botocore
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ProxyConnectionError",
    "ResponseParserError",
    "IncompleteReadError",
    "ClientError",  # aiohttp; the one of botocore has a response
    "SSHException",  # paramiko
    "NoValidConnectionsError",
    "TimeoutError",
}
_DENIED_NAMES = {
    "NoCredentialsError",  # botocore
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "AuthenticationException",  # paramiko
    "BadHostKeyException",
}
# S3 error codes for cases that the status does not show.
_DENIED_CODES = ("ExpiredToken", "InvalidToken")
_BUSY_CODES = ("RequestTimeout", "Throttling", "SlowDown")
_SENTENCES: dict[type[StoreError], str] = {
    MissingStoreError: "{shown}: there is no bucket {host}",
    RemoteDeniedError: "access to {shown} is denied: {reason}",
    RemoteNotFoundError: "{shown} is not there: {reason}",
    ConditionFailedError: "{shown} was replaced while it was read: start again",
    NoSpaceError: "{shown} cannot be written: no space is left there: {reason}",
    UnreachableError: "{shown} cannot be reached, or breaks off: {reason}",
    RemoteError: "{shown}: the server refuses: {reason}",
}
_OF_STATUS: dict[int, type[StoreError]] = {
    404: RemoteNotFoundError,
    409: ConditionFailedError,
    412: ConditionFailedError,
    416: ConditionFailedError,
}


def class_of(error: BaseException) -> type[StoreError]:
    """Return the class of `store.errors` that an exception of a client library belongs to."""
    error = _meant(error)
    status, code, _ = _answer(error)
    names = {kind.__name__ for kind in type(error).__mro__}
    if any(kind.__module__ == "ftplib" for kind in type(error).__mro__):
        return _of_ftp(str(error), names)
    if code == "NoSuchBucket":
        return MissingStoreError
    if status in (401, 403) or code in _DENIED_CODES or names & _DENIED_NAMES:
        return RemoteDeniedError
    if status >= 500 or status in (408, 429) or code in _BUSY_CODES:
        return UnreachableError
    if status:
        return _OF_STATUS.get(status, RemoteError)
    if isinstance(error, PermissionError):
        return RemoteDeniedError
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return RemoteNotFoundError
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError
    if isinstance(error, (ConnectionError, EOFError, socket.gaierror)) or names & _PASSING_NAMES:
        return UnreachableError
    if isinstance(error, OSError) and (error.errno in _PASSING or str(error) == "Socket is closed"):  # paramiko
        return UnreachableError
    return RemoteError


def may_pass(error: BaseException) -> bool:
    """Return True if the same request may succeed a little later. A StoreError is final."""
    return not isinstance(error, StoreError) and class_of(error) is UnreachableError


def error_for(error: Exception, location: Location) -> StoreError:
    """Return an exception of a client library as an error of `store.errors`, with a sentence about `location`. Return a
    StoreError unchanged."""
    if isinstance(error, StoreError):
        return error
    kind, reason = class_of(error), reason_of(error, location.secrets)
    return kind(_SENTENCES[kind].format(shown=location.shown, host=location.host, reason=reason))


@contextmanager
def translating(location: Location) -> Iterator[None]:
    """Turn the exceptions of a client library inside the context into errors about `location` (`error_for`)."""
    try:
        yield
    except (StoreError, CannotGrowError):  # of the content
        raise
    except Exception as error:
        raise error_for(error, location) from error


def reason_of(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return the message of an exception in one line, without the secrets."""
    error = _meant(error)
    status, code, told = _answer(error)
    if code:
        name = "" if code == str(status) else f" {code}"
        text = f"the server answers {status}{name}: {told}"
    else:
        text = " ".join(str(error).split())
        if not text:
            text = "it does not answer in time" if class_of(error) is UnreachableError else type(error).__name__
    text = _SECRETS_IN_URL.sub("***", text)  # they may be encoded differently than the user wrote them
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) < _SHORT:  # it may be part of many words
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        else:
            text = text.replace(secret, "***")
    return printable(text)[:_MAX_REASON]


def parameter_reason(error: Exception) -> str:
    """Return an error message about the parameters of a location. Libraries take these as function arguments."""
    unknown = _UNKNOWN_PARAMETER.search(str(error)) if isinstance(error, TypeError) else None
    return f"there is no parameter {unknown[1]}" if unknown else f"one of the parameters has no meaning there: {error}"


def _meant(error: BaseException) -> BaseException:
    """Return the real error. fsspec raises FileNotFoundError, with a cause, if a web server cannot be reached."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and cause is not None and class_of(cause) is UnreachableError:
        return cause
    return error


def _of_ftp(text: str, names: set[str]) -> type[StoreError]:
    if text.startswith(("452", "552")):
        return NoSpaceError
    if names & {"error_temp", "error_proto"}:
        return UnreachableError
    if text.startswith(("530", "532", "533")) or "permission" in text.lower():
        return RemoteDeniedError
    return RemoteNotFoundError if text.startswith("550") else RemoteError


def _answer(error: BaseException | None) -> tuple[int, str, str]:
    """Return the status, code and text of an HTTP answer from an error of botocore or aiohttp; 0 and empty for none."""
    for _ in range(3):
        response: Any = getattr(error, "response", None)
        if isinstance(response, dict):
            told = response.get("Error", {})
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return (
                status if isinstance(status, int) else 0,
                str(told.get("Code", "")),
                " ".join(str(told.get("Message", "")).split()),
            )
        status = getattr(error, "status", None)
        if isinstance(status, int):
            return status, "", ""
        error = error.__cause__ if error is not None else None
    return 0, "", ""
