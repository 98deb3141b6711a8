"""Ranges of S3 objects, fetched without the library: with the library's requests, and only for bytes."""

import contextlib
import http.server
import time
from pathlib import Path

import pytest

from bentofs.store.clients.s3_client import S3Client, etag_of
from bentofs.store.clients.s3_plain import Manner, manner_of_object
from bentofs.store.clients.s3_ranges import fetch_range
from bentofs.store.location import Location
from tests.buckets import Bucket
from tests.servers import RcloneServer, SeaweedServer
from tests.store.clients.plain import Answer, answering, certified, requests_at, serving, without_library

_SIGNED = "AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-3/s3/aws4_request, SignedHeaders=host, Signature=abc"
_PLAIN = {"Authorization": _SIGNED, "Range": "bytes=0-1", "X-Amz-Date": "20260101T000000Z"}
_NAMES = ["plain", "a/b c/d+e", "100%/x%20y", "q?x=1&y", "h#a", "ü/\N{SNOWMAN}", "t~/-_.", "b'\"(!*)", "x=@:,;$"]


@pytest.mark.parametrize(
    ("url", "headers", "manner"),
    [
        ("https://b.s3.amazonaws.com/k/e%20y", _PLAIN, Manner("https://b.s3.amazonaws.com", "/", "eu-west-3")),
        ("http://h:9/under/b/k/e%20y", _PLAIN, Manner("http://h:9", "/under/b/", "eu-west-3")),
        ("http://h:9/b/k/e%20y", {"Range": "bytes=0-1"}, Manner("http://h:9", "/b/", "")),
        ("http://h:9/b/k/other", _PLAIN, None),
        ("http://h:9/b/k/e%20y?versionId=1", _PLAIN, None),
        ("http://h:9/b/k/e%20y", {**_PLAIN, "x-amz-request-payer": "requester"}, None),
        ("http://h:9/b/k/e%20y", {**_PLAIN, "Authorization": "AWS AK:signature"}, None),
        ("http://h:9/b/k/e%20y", {**_PLAIN, "Authorization": _SIGNED.replace("/s3/", "/s3express/")}, None),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(url: str, headers: dict[str, str], manner: Manner | None) -> None:
    assert manner_of_object("k/e y", url, headers) == manner


def test_proxies_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert manner_of_object("k", "http://h:9/b/k", _PLAIN) is None


def test_the_same_bytes_past_the_library(bucket: Bucket, client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NAMES:
        bucket.put(name, name.encode() * 1000)
    keys = {name: f"{bucket.prefix}/{name}" for name in _NAMES}
    first, told = client.fetch(keys["plain"], 10, 20)
    assert first == b"plain" * 2
    etag = etag_of(told)
    without_library(client, monkeypatch)
    assert client.fetch(keys["plain"], 10, 20, etag=etag) == (
        first,
        {name: told[name] for name in ("ETag", "LastModified")},
    )
    for name, key in keys.items():
        content = name.encode() * 1000
        assert client.fetch(key, 3, len(content))[0] == content[3:]
        assert client.fetch(key, len(content) - 5, len(content) + 5)[0] == content[-5:]


def test_errors_are_the_librarys(bucket: Bucket, client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put("a", b"a" * 100)
    key = f"{bucket.prefix}/a"
    client.fetch(key, 0, 10)
    with pytest.raises(FileNotFoundError):
        client.fetch(f"{key}/not", 0, 10)
    if isinstance(bucket.server, SeaweedServer):
        with pytest.raises(OSError, match=r"[Pp]re-?condition"):
            client.fetch(key, 0, 10, etag="0" * 32)
    without_library(client, monkeypatch)
    assert client.fetch(key, 0, 10)[0] == b"a" * 10


def test_who_is_told_something_else_learns_anew(
    bucket: Bucket, client: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client with outdated credentials asks for new ones. Example: they were replaced after the client asked."""
    bucket.put("a", b"a" * 100)
    key = f"{bucket.prefix}/a"
    client.fetch(key, 0, 10)
    assert client._reads.requests is not None
    client._reads.requests._credentials = None
    client._reads.requests._ask_for_credentials = lambda _stops: None
    for _ in range(2):
        assert client.fetch(key, 0, 10)[0] == b"a" * 10
    without_library(client, monkeypatch)
    assert client.fetch(key, 0, 10)[0] == b"a" * 10


def test_a_server_that_was_started_anew_meanwhile(rclone: RcloneServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection is useless after a restart of the server. That is no error."""
    bucket = Bucket(rclone)
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    bucket.put("a", b"a" * 100)
    client = S3Client(Location.parse(f"s3://{bucket.name}"), connect_seconds=5, silence_seconds=5)
    key = f"{bucket.prefix}/a"
    for _ in range(2):
        client.fetch(key, 0, 10)
    rclone.kill()
    rclone.start()
    without_library(client, monkeypatch)
    assert client.fetch(key, 0, 10)[0] == b"a" * 10
    rclone.kill()
    with pytest.raises(ConnectionError):
        client.fetch(key, 0, 10)
    rclone.start()
    client.close()


def trickling(handler: http.server.BaseHTTPRequestHandler) -> None:
    answering(206, b"", 100)(handler)
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b"x")
            time.sleep(0.2)  # a slow server


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answering(206, b"x" * 101), "sends more"),
        (answering(200, b"x" * 5000), "sends more"),
        (answering(503, b"busy"), "answers 503"),
        (answering(429, b"busy"), "answers 429"),
        (lambda handler: handler.wfile.write(b"what?\r\n\r\n"), "no HTTP"),
        (lambda handler: setattr(handler, "close_connection", True), "closed"),
        (lambda _handler: time.sleep(2), "was silent"),  # a silent server
        (trickling, "too long"),
    ],
)
def test_answers_that_are_worth_another_try(answer: Answer, error: str) -> None:
    with serving(answer) as port:
        requests = requests_at(port)
        begun = time.monotonic()
        with pytest.raises((ConnectionError, TimeoutError), match=error):
            fetch_range(requests, "k", 0, 100, etag="", seconds=1.5)
        assert time.monotonic() - begun < 15
        assert requests._idle == []
        requests.close()


def test_answers_that_are_short_or_to_be_understood() -> None:
    with serving(answering(206, b"x" * 40, 100)) as port:
        requests = requests_at(port)
        found = fetch_range(requests, "k", 0, 100, etag="", seconds=5)
        assert found is not None
        assert found[0] == b"x" * 40
        assert requests._idle == []
    for status in (301, 400, 403, 404, 412):
        with serving(answering(status, b"<Error/>")) as port:
            assert fetch_range(requests_at(port), "k", 0, 100, etag="", seconds=5) is None


@pytest.mark.parametrize(
    ("status", "of_range", "is_taken"),
    [
        (206, "bytes 5-9/10", True),
        (200, "bytes 5-9/10", True),  # like rclone
        (206, "bytes 0-4/10", False),
        (206, "", False),
        (200, "", False),  # a server without support for ranges
    ],
)
def test_bytes_of_another_place_are_not_taken(status: int, of_range: str, is_taken: bool) -> None:
    with serving(answering(status, b"x" * 5, of_range=of_range)) as port:
        requests = requests_at(port)
        assert (fetch_range(requests, "k", 5, 10, etag="", seconds=5) is not None) == is_taken
        requests.close()


def test_who_a_server_is_is_checked(tmp_path: Path) -> None:
    context, certificate = certified(tmp_path)
    with serving(answering(206, b"x" * 100), context) as port:
        trusting = requests_at(port, "https", certificates=str(certificate))
        for _ in range(2):
            found = fetch_range(trusting, "k", 0, 100, etag="", seconds=5)
            assert found is not None
            assert found[0] == b"x" * 100
        assert len(trusting._idle) == 1
        trusting.close()
        assert fetch_range(requests_at(port, "https"), "k", 0, 100, etag="", seconds=5) is None
