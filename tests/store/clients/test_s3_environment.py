"""Servers and users that the environment names, judged by the requests that the library makes there."""

import contextlib
from pathlib import Path

import pytest

from bentofs.store.clients.s3_client import S3Client
from bentofs.store.clients.s3_environment import environment_of
from bentofs.store.location import Location
from tests.buckets import Bucket

_SERVER = {"AWS_ENDPOINT_URL": "http://h:9000", "AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "secret"}
_NOWHERE = {"AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"}


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def test_requests_are_the_librarys(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that learns from the library finds the same manner."""
    location = Location.parse(f"s3://{bucket.name}")
    told = environment_of(location)
    assert told is not None
    bucket.put("a", b"a" * 100)
    monkeypatch.setattr("bentofs.store.clients.s3_client.environment_of", lambda _location: None)
    with contextlib.closing(S3Client(location, connect_seconds=5, silence_seconds=5)) as client:
        key = f"{bucket.prefix}/a b~"
        upload = client.ask("create_multipart_upload", Key=key)["UploadId"]
        client.ask("abort_multipart_upload", Key=key, UploadId=upload)
        client.fetch(f"{bucket.prefix}/a", 0, 10)
        client.page(bucket.prefix)
        for shortcut, manner in (
            (client._writes, told.objects),
            (client._reads, told.objects),
            (client._lists, told.listings),
        ):
            assert shortcut.requests is not None
            assert shortcut.requests._manner == manner
        assert client.endpoint() == told.endpoint
        found = client._wait(client._loaded().credentials())
        assert (found.access_key, found.secret_key, found.token) == told.credentials


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("s3://bucket/k", {"AWS_PROFILE": "other"}),
        ("s3://bucket/k", {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported"}),
        ("s3://bucket/k", {"AWS_ENDPOINT_URL": "http://h:80"}),
        ("s3://bucket/k", {"AWS_ENDPOINT_URL": "http://h:9000/under"}),
        ("s3://bucket/k", {"AWS_ENDPOINT_URL": "https://s3.eu-west-3.amazonaws.com"}),
        ("s3://bucket/k", {"AWS_ENDPOINT_URL": ""}),
        ("s3://bucket/k", {"AWS_SECRET_ACCESS_KEY": ""}),
        ("s3://bucket/k", {"FSSPEC_S3_ANON": "true"}),
        ("s3://bucket/k?anon=true", {}),
        ("s3://bucket/k?profile=other", {}),
        ("s3://AK@bucket/k", {}),
        ("s3://AK:secret%0D@bucket/k", {}),
        ("s3://bucket/k", {"AWS_SESSION_TOKEN": "token\r"}),
        ("s3://bucket/k", {"AWS_ACCESS_KEY_ID": "\xe4"}),
        ("s3://B_C/k", {}),
    ],
)
def test_everything_unusual_is_left_to_the_library(url: str, more: dict[str, str]) -> None:
    plain = {**_SERVER, **_NOWHERE}
    assert environment_of(Location.parse("s3://bucket/k"), plain) is not None
    assert environment_of(Location.parse(url), {**plain, **more}) is None


@pytest.mark.parametrize("path", [".aws/config", ".aws/credentials", ".boto", ".config/fsspec/a.json"])
def test_configuration_files_are_left_to_the_library(empty_home: Path, path: str) -> None:
    assert environment_of(Location.parse("s3://bucket/k"), _SERVER) is not None
    (empty_home / path).parent.mkdir(parents=True, exist_ok=True)
    (empty_home / path).touch()
    assert environment_of(Location.parse("s3://bucket/k"), _SERVER) is None


def test_proxies_are_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert environment_of(Location.parse("s3://bucket/k"), _SERVER) is None


def test_a_url_outdoes_the_environment() -> None:
    told = environment_of(Location.parse("s3://me:my%2Fown@bucket/k?endpoint_url=https://other:1&region=r"), _SERVER)
    assert told is not None
    assert told.credentials == ("me", "my/own", None)
    assert told.objects == ("https://other:1", "/bucket/", "r")
    assert told.listings == ("https://other:1", "/bucket", "r")
