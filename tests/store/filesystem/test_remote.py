"""`bentofs://` of a store in a bucket: only the ranges that are read are moved."""

import functools
import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pytest

import bentofs
from bentofs.store.filesystem.file_system import BentofsFileSystem
from tests.buckets import Bucket
from tests.harness import home_of, make_model
from tests.servers import Proxy, SeaweedServer

_PARTS = 16
_PART = 1 << 20  # bytes
_ANSWERS = 20_000  # bytes of all headers and listings, at most


def _made_checkpoint() -> bytes:
    """Return a file like those of torch.save: an uncompressed zip with a file for each tensor."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("archive/data.pkl", b"no pickle")
        for number in range(_PARTS):
            zipped.writestr(f"archive/data/{number}", random.Random(number).randbytes(_PART))
    return content.getvalue()


_CHECKPOINT = _made_checkpoint()


@pytest.fixture
def bucket(seaweed: SeaweedServer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    for name, value in home_of(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    made = Bucket(seaweed)
    environment = made.environment()
    del environment["AWS_ENDPOINT_URL"]  # tests name it in their options
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    make_model(store, "iris:v1", {"model.pt": _CHECKPOINT, "table.csv": b"x,y\n1,2\n3,4\n"}, latest=True)
    made.upload(store)
    yield made
    BentofsFileSystem.clear_instance_cache()


def test_only_the_ranges_are_moved(bucket: Bucket, proxies: Callable[[int], Proxy]) -> None:
    proxy = proxies(bucket.server.port)
    options: dict[str, Any] = {"store": bucket.url, "storage_options": {"endpoint_url": proxy.endpoint}}
    table = pandas.read_csv("bentofs://iris/latest/files/table.csv", storage_options=options)
    assert table["y"].tolist() == [2, 4]
    fs = fsspec.filesystem("bentofs", **options)
    size = fs.size("iris/latest/files/model.pt")
    assert size > _PARTS * _PART
    assert {info["size"] for info in fs.ls("iris/v1")} > {fs.size("iris/v1/iris-v1.zip")}  # no size is None
    assert proxy.received < _ANSWERS

    def moved(read: Callable[[], bytes], wanted: bytes) -> int:
        before = proxy.received
        assert read() == wanted
        return proxy.received - before

    part = random.Random(7).randbytes(_PART)

    def one_tensor() -> bytes:
        with fs.open("iris/latest/files/model.pt") as file, zipfile.ZipFile(file) as zipped:
            return zipped.read("archive/data/7")

    assert moved(one_tensor, part) < _PART + 3 * (64 << 10) + _ANSWERS
    for start, end in ((5_000_000, 5_000_100), (12_345_678, 12_400_000)):
        read = functools.partial(fs.cat_file, "iris/v1/files/model.pt", start, end)
        assert moved(read, _CHECKPOINT[start:end]) < end - start + _ANSWERS

    def last_of_an_archive() -> bytes:
        with fs.open("iris/v1/iris-v1.tar") as file, tarfile.open(fileobj=file) as tar:
            member = tar.extractfile("table.csv")
            assert member is not None
            return member.read()

    assert moved(last_of_an_archive, b"x,y\n1,2\n3,4\n") < 4 * (64 << 10) + _ANSWERS


def test_a_replaced_object_ends_a_reader(bucket: Bucket) -> None:
    fs = BentofsFileSystem(bucket.url, storage_options={"endpoint_url": bucket.server.endpoint})
    with fs.open("iris/v1/files/model.pt") as file, fs.open("iris/v1/iris-v1.tar") as archive:
        file.read(1000)
        archive.read(1000)
        bucket.put("iris/v1/model.pt", _CHECKPOINT[::-1])
        for each in (file, archive):
            each.seek(9_000_000)
            with pytest.raises(bentofs.SourceChangedError):
                each.read(1000)
    assert fs.cat_file("iris/v1/files/model.pt", 0, 1000) == _CHECKPOINT[::-1][:1000]


def test_a_server_that_is_away_is_no_missing_file(bucket: Bucket, proxies: Callable[[int], Proxy]) -> None:
    proxy = proxies(bucket.server.port)
    proxy.trouble = "refuse"
    fs = BentofsFileSystem(bucket.url, storage_options={"endpoint_url": proxy.endpoint}, timeout=0.5)
    for look in (fs.exists, fs.find):
        with pytest.raises(bentofs.RemoteError):
            look("iris/v1")
