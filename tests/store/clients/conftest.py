"""A bucket of a real S3 server, and a client of it."""

from collections.abc import Iterator

import pytest

from bentofs.store.clients.s3_client import S3Client
from bentofs.store.location import Location
from tests.buckets import Bucket


@pytest.fixture(params=["seaweed", "rclone"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket(request.getfixturevalue(request.param))
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def client(bucket: Bucket) -> Iterator[S3Client]:
    client = S3Client(Location.parse(f"s3://{bucket.name}"), connect_seconds=5, silence_seconds=5)
    yield client
    client.close()
