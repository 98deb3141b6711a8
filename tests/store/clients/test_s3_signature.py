"""Signatures of requests are the library's, header for header."""

import hashlib

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from bentofs.store.clients.s3_signature import Signer

_ADDRESSES = [
    "http://127.0.0.1:8333",
    "http://Storage.Example:80",
    "https://b.s3.eu-west-3.amazonaws.com",
    "https://s3.example:443",
    "https://s3.example:8443",
    "http://[::1]:9000",
]
_TARGETS = ["/bucket/a/b%20c/d%2Be", "/bucket?delimiter=%2F&list-type=2&prefix=", "/", "/b/%C3%BC~t-_.x"]
_HEADERS = {"User-Agent": "bentofs", "Range": "bytes=0-9", "If-Match": '"an  etag"'}


@pytest.mark.parametrize("address", _ADDRESSES)
@pytest.mark.parametrize("token", [None, "of/a+session=="])
def test_as_the_library_signs(address: str, token: str | None) -> None:
    signer = Signer(address, "eu-west-3")
    for secret in ("first/secret", "second/secret", "first/secret"):
        credentials = ReadOnlyCredentials("AKID", secret, token)
        for target in _TARGETS:
            path, _, query = target.partition("?")
            for _ in range(5):  # both may be made in different seconds
                request = AWSRequest("GET", address + target, headers=_HEADERS)
                S3SigV4Auth(credentials, "s3", "eu-west-3").add_auth(request)
                signed = signer.signed(path, query, _HEADERS, credentials)
                if signed["X-Amz-Date"] == request.headers["X-Amz-Date"]:
                    break
            assert {name.lower(): value for name, value in signed.items()} == {
                name.lower(): value for name, value in request.headers.items()
            }


def test_a_content_is_covered() -> None:
    credentials, content, path, query = ReadOnlyCredentials("AKID", "secret", None), b"content", "/b/k", "partNumber=1"
    sha256 = hashlib.sha256(content).hexdigest()
    for _ in range(5):  # both may be made in different seconds
        request = AWSRequest("PUT", f"http://h:9{path}?{query}", headers={"User-Agent": "bentofs"}, data=content)
        S3SigV4Auth(credentials, "s3", "eu-west-3").add_auth(request)
        signed = Signer("http://h:9", "eu-west-3").signed(
            path, query, {"Content-Length": "7"}, credentials, method="PUT", sha256=sha256
        )
        if signed["X-Amz-Date"] == request.headers["X-Amz-Date"]:
            break
    assert signed["Authorization"] == request.headers["Authorization"]
