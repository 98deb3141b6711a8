"""Failures: the meaning of an exception from a client library, and its reason without secrets.

Exceptions of botocore, aiohttp, paramiko and ftplib are recognized by name, so that unused libraries are not loaded.
s3fs wraps an exception of botocore in an OSError of its own, with the original as its cause.

Threading: functions without state.
"""

from __future__ import annotations

import enum
import errno
import re
import socket
from collections.abc import Iterable
from typing import Any

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


class Failure(enum.Enum):
    """The kind of a failure."""

    PASSING = "it may go well the next time: a timeout, a lost connection, a server that is busy"
    MISSING = "there is no such thing"
    CHANGED = "it is no longer, or already, what a condition said"
    DENIED = "the server knows us and says no, or does not know us"
    FULL = "there is no room for it"
    REFUSED = "it will not go well the next time either"


def failure_of(error: BaseException) -> Failure:
    """Return the kind of failure that an exception means."""
    error = _meant(error)
    status, code, _ = _answer(error)
    names = {kind.__name__ for kind in type(error).__mro__}
    if any(kind.__module__ == "ftplib" for kind in type(error).__mro__):
        return _of_ftp(str(error), names)
    if status in (401, 403) or code in _DENIED_CODES or names & _DENIED_NAMES:
        return Failure.DENIED
    if status >= 500 or status in (408, 429) or code in _BUSY_CODES:
        return Failure.PASSING
    if status:
        return {404: Failure.MISSING, 409: Failure.CHANGED, 412: Failure.CHANGED, 416: Failure.CHANGED}.get(
            status, Failure.REFUSED
        )
    if isinstance(error, PermissionError):
        return Failure.DENIED
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return Failure.MISSING
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure.FULL
    if isinstance(error, (ConnectionError, EOFError, socket.gaierror)) or names & _PASSING_NAMES:
        return Failure.PASSING
    if isinstance(error, OSError) and (error.errno in _PASSING or str(error) == "Socket is closed"):  # paramiko
        return Failure.PASSING
    return Failure.REFUSED


def code_of(error: BaseException) -> str:
    """Return the error code of an S3 server; empty for none."""
    return _answer(error)[1]


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
            text = "it does not answer in time" if failure_of(error) is Failure.PASSING else type(error).__name__
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
    if isinstance(error, FileNotFoundError) and cause is not None and failure_of(cause) is Failure.PASSING:
        return cause
    return error


def _of_ftp(text: str, names: set[str]) -> Failure:
    if text.startswith(("452", "552")):
        return Failure.FULL
    if names & {"error_temp", "error_proto"}:
        return Failure.PASSING
    if text.startswith(("530", "532", "533")) or "permission" in text.lower():
        return Failure.DENIED
    return Failure.MISSING if text.startswith("550") else Failure.REFUSED


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
