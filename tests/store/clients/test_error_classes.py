"""The meaning of the libraries' own exceptions, and the errors that users get for them."""

import errno
import ftplib
import socket

import aiohttp
import paramiko
import pytest
from botocore import exceptions as botocore

from bentofs.store.clients.error_classes import error_for, may_pass, translating
from bentofs.store.errors import (
    ConditionFailedError,
    MissingStoreError,
    NoSpaceError,
    RemoteDeniedError,
    RemoteError,
    RemoteNotFoundError,
    StoreError,
    TooBigError,
    UnreachableError,
)
from bentofs.store.location import Location

URL = "http://server/bucket"


def answer(status: int, code: str) -> botocore.ClientError:
    told = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.ClientError(told, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (botocore.ConnectTimeoutError(endpoint_url=URL), UnreachableError),
        (botocore.ReadTimeoutError(endpoint_url=URL), UnreachableError),
        (botocore.EndpointConnectionError(endpoint_url=URL), UnreachableError),
        (botocore.ConnectionClosedError(endpoint_url=URL), UnreachableError),
        (botocore.ProxyConnectionError(proxy_url=URL), UnreachableError),
        (botocore.SSLError(endpoint_url=URL, error="a certificate"), RemoteError),
        (botocore.NoCredentialsError(), RemoteDeniedError),
        (answer(503, "SlowDown"), UnreachableError),
        (answer(400, "RequestTimeout"), UnreachableError),
        (answer(400, "ExpiredToken"), RemoteDeniedError),
        (answer(403, "AccessDenied"), RemoteDeniedError),
        (answer(404, "NoSuchKey"), RemoteNotFoundError),
        (answer(404, "NoSuchBucket"), MissingStoreError),
        (answer(412, "PreconditionFailed"), ConditionFailedError),
        (answer(400, "InvalidRequest"), RemoteError),
        (aiohttp.ServerDisconnectedError(), UnreachableError),
        (paramiko.SSHException("no banner"), UnreachableError),
        (paramiko.AuthenticationException("no"), RemoteDeniedError),
        (ftplib.error_temp("421 busy"), UnreachableError),
        (ftplib.error_perm("552 quota"), NoSpaceError),
        (ftplib.error_perm("530 who"), RemoteDeniedError),
        (ftplib.error_perm("550 no such file"), RemoteNotFoundError),
        (ConnectionResetError(), UnreachableError),
        (EOFError(), UnreachableError),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), UnreachableError),
        (OSError(errno.EDQUOT, "quota"), NoSpaceError),
        (TypeError("no parameter"), RemoteError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_kinds(error: Exception, kind: type[StoreError]) -> None:
    location = Location.parse("s3://bucket/m.tar")
    assert type(error_for(error, location)) is kind
    assert location.shown in str(error_for(error, location))
    assert may_pass(error) is (kind is UnreachableError)


def test_an_error_of_ours_is_final() -> None:
    """A source that another server does not give is not asked for again by the retries of the target."""
    ours = UnreachableError("the store cannot be reached")
    assert error_for(ours, Location.parse("ftp://host/m.tar")) is ours
    assert not may_pass(ours)
    with pytest.raises(TooBigError) as raised, translating(Location.parse("ftp://host/m.tar")):
        raise TooBigError("too big")
    assert raised.value.__cause__ is None
