"""Pages of listings, made without the library: equal to the library's pages, and only if they are pages."""

import datetime
import http.server
import itertools
from typing import Any

import pytest

from bentofs.store.clients.objects import Listing, ObjectInfo
from bentofs.store.clients.s3_client import S3Client
from bentofs.store.clients.s3_pages import fetch_page, page_of
from bentofs.store.clients.s3_plain import Manner, manner_of_listing
from bentofs.store.errors import MissingStoreError
from bentofs.store.storage.open import StoreSpec
from tests.buckets import Bucket
from tests.store.clients.plain import Answer, answering, requests_at, serving, without_library

_SIGNED = "AWS4-HMAC-SHA256 Credential=AK/20260101/eu-west-3/s3/aws4_request, SignedHeaders=host, Signature=abc"
_HEADERS = {"Authorization": _SIGNED, "X-Amz-Date": "20260101T000000Z"}
_NAMES = [
    "plain",
    "a/b c/d+e",
    "100%/x%20y",
    "q?x=1&y",
    "h#a",
    "\u00fc/\N{SNOWMAN}",
    "t~/-_.",
    "b'\"(!*)<&>",
    "x=@:,;$",
]
_PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{}</ListBucketResult>"""


@pytest.mark.parametrize(
    ("url", "headers", "manner"),
    [
        (
            "https://b.s3.amazonaws.com/?list-type=2&prefix=",
            _HEADERS,
            Manner("https://b.s3.amazonaws.com", "/", "eu-west-3"),
        ),
        (
            "http://h:9/under/b?list-type=2&prefix=x%2F&delimiter=%2F",
            _HEADERS,
            Manner("http://h:9", "/under/b", "eu-west-3"),
        ),
        ("http://h:9/b?list-type=2", {}, Manner("http://h:9", "/b", "")),
        ("http://h:9/b?prefix=x", _HEADERS, None),
        ("http://h:9/b?list-type=2&max-keys=7", _HEADERS, None),
        ("http://h:9/b?list-type=2", {**_HEADERS, "x-amz-request-payer": "requester"}, None),
    ],
)
def test_what_is_not_plain_is_left_to_the_library(url: str, headers: dict[str, str], manner: Manner | None) -> None:
    assert manner_of_listing(url, headers) == manner


def test_the_same_pages_past_the_library(bucket: Bucket, client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NAMES:
        bucket.put(name, name.encode())
    begin = f"{bucket.prefix}/"
    asked = [(begin, ""), (begin, "/"), (f"{begin}a", ""), (f"{begin}none", "")]
    by_library = [client._page(prefix, "", delimiter, ()) for prefix, delimiter in asked]
    assert sorted(info.key.removeprefix(begin) for info in by_library[0].objects) == sorted(_NAMES)
    assert by_library[0].objects[0].etag
    assert client._lists.requests is not None
    without_library(client, monkeypatch)
    assert [client.page(prefix, delimiter=delimiter) for prefix, delimiter in asked] == by_library


def test_listings_and_reads_are_learnt_by_the_same_client(
    bucket: Bucket, client: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("a", b"bytes")
    client.page(f"{bucket.prefix}/")
    assert client.fetch(f"{bucket.prefix}/a", 0, 5)[0] == b"bytes"
    without_library(client, monkeypatch)
    assert len(client.page(f"{bucket.prefix}/").objects) == 1
    assert client.fetch(f"{bucket.prefix}/a", 0, 5)[0] == b"bytes"


def test_all_pages_come(bucket: Bucket, client: S3Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is made smaller than a thousand keys: the tokens lead from one to the next."""
    names = [f"some/{number:02}" for number in range(7)]
    for name in names:
        bucket.put(name, b"x")
    client.page("none/")
    requests = client._lists.requests
    assert requests is not None
    get = requests.get

    def small(receive: Any, *, query: dict[str, str]) -> Any:
        return get(receive, query={**query, "max-keys": "3"})

    monkeypatch.setattr(requests, "get", small)
    without_library(client, monkeypatch)
    pages = [client.page(f"{bucket.prefix}/some/")]
    while pages[-1].more:
        pages.append(client.page(f"{bucket.prefix}/some/", pages[-1].more))
    assert [len(page.objects) for page in pages] == [3, 3, 1]
    found = [info.key.removeprefix(f"{bucket.prefix}/") for page in pages for info in page.objects]
    assert sorted(found) == names


def test_a_bucket_that_is_removed_meanwhile(bucket: Bucket) -> None:
    name = bucket.server.new_bucket()
    objects = StoreSpec.named(f"s3://{name}/models").open_remote().objects
    assert objects.list_objects("") == Listing([], [], "")
    bucket.client.delete_bucket(Bucket=name)
    with pytest.raises(MissingStoreError):
        objects.list_objects("")


def test_fields_of_a_page() -> None:
    """Fields that some servers leave out or write otherwise."""
    bare = "<Contents><Key> a\nb </Key><Size>3</Size></Contents>"
    assert page_of(_PAGE.format(bare).encode()) == Listing([ObjectInfo(" a\nb ", 3, "", 0)], [], "")
    full = (
        "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>a%2Fb</NextContinuationToken>"
        "<Contents><Key>a%2Fb+c%0D</Key><Size>3</Size><ETag>&#34;e&#34;</ETag>"
        "<LastModified>2026-01-02T03:04:05.678Z</LastModified><Owner><ID>x</ID></Owner></Contents>"
        "<CommonPrefixes><Prefix>p%20/</Prefix></CommonPrefixes>"
    )
    time = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    mtime_ns = int(time.timestamp()) * 10**9 + 678_000_000
    expected = Listing([ObjectInfo("a/b c\r", 3, "e", mtime_ns)], ["p /"], "a%2Fb")
    assert page_of(_PAGE.format(full).encode()) == expected
    assert (
        page_of(_PAGE.format(full).replace(' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', "").encode()) == expected
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<ListBucketResult>",
        b"<Error><Code>SlowDown</Code></Error>",
        _PAGE.format("<Contents><Size>3</Size></Contents>").encode(),
        _PAGE.format("<Contents><Key>a</Key><Size>many</Size></Contents>").encode(),
        _PAGE.format("<Contents><Key>a</Key><Size>1</Size><LastModified>now</LastModified></Contents>").encode(),
        _PAGE.format("<Contents><Key>\0</Key><Size>1</Size></Contents>").encode(),
    ],
)
def test_no_pages_are_left_to_the_library(content: bytes) -> None:
    assert page_of(content) is None


def test_answers() -> None:
    page = _PAGE.format("<KeyCount>0</KeyCount>").encode()
    with serving(answering(200, page)) as port:
        requests = requests_at(port)
        for _ in range(2):
            assert fetch_page(requests, "p", "", delimiter="", seconds=5) == Listing([], [], "")
        assert len(requests._idle) == 1, "the connection serves again"
        requests.close()

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        answering(200, b"", 10**9)(handler)
        for _ in itertools.repeat(None):
            try:
                handler.wfile.write(b" " * (1 << 20))
            except OSError:
                return

    refused: list[tuple[Answer, str]] = [
        (answering(503, b"busy"), "answers 503"),
        (answering(200, page, len(page) + 1), "early"),
    ]
    for answer, error in refused:
        with serving(answer) as port, pytest.raises(ConnectionError, match=error):
            fetch_page(requests_at(port), "p", "", delimiter="", seconds=5)
    left: list[Answer] = [answering(301, page), answering(403, b"<Error/>"), answering(404, b""), endless]
    for answer in left:
        with serving(answer) as port:
            assert fetch_page(requests_at(port), "p", "", delimiter="", seconds=60) is None
