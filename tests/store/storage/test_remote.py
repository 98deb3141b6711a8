"""A store of objects, on a real S3 server and on fsspec's file system in memory."""

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
import pytest
from cachetools import TTLCache

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.clients.objects import Listing, ObjectInfo
from bentofs.store.errors import (
    BadLocationError,
    BadModelError,
    NotFoundError,
    RemoteDeniedError,
    RemoteError,
    SourceChangedError,
    UnsafeMemberError,
)
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Entry, Kind
from bentofs.store.storage.manifest import Manifest
from bentofs.store.storage.open import StoreSpec
from bentofs.store.storage.remote import RemoteStorage
from tests.buckets import Bucket
from tests.harness import make_model
from tests.servers import SeaweedServer


@pytest.fixture
def bucket(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket(seaweed)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    return made


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    fs = fsspec.filesystem("memory")
    fs.mkdir("/some/models")
    yield fs
    fs.rm("/some", recursive=True)


def opened(bucket: Bucket, **settings: Any) -> RemoteStorage:
    return StoreSpec.named(bucket.url, **settings).open_remote()


def read(storage: RemoteStorage, entry: Entry) -> bytes:
    assert entry.identity is not None
    content = bytearray(entry.size)
    storage.open_file(entry.source, entry.identity).read_into([memoryview(content)], 0)
    return bytes(content)


def test_folders_are_what_keys_have_in_common(bucket: Bucket) -> None:
    for path in ("m/v1/model.yaml", "m/v1/a/b/c", "m/latest", "m-a/v1/model.yaml", "stray"):
        bucket.put(path, path.encode())
    storage = opened(bucket)
    assert sorted(storage.list_folder("")) == [("m", Kind.FOLDER), ("m-a", Kind.FOLDER), ("stray", Kind.FILE)]
    assert sorted(storage.list_folder("m")) == [("latest", Kind.FILE), ("v1", Kind.FOLDER)]
    assert storage.list_folder("m/v1/a") == [("b", Kind.FOLDER)]
    assert storage.status("m/v1/a/b").kind is Kind.FOLDER
    assert storage.status("m/v1/a/b/c").kind is Kind.FILE
    assert storage.read_small("m/latest", 100) == b"m/latest"
    for missing in ("n", "m/v2", "m/v1/a/b/d", "m/v"):
        with pytest.raises(NotFoundError):
            storage.status(missing)
    with pytest.raises(BadModelError, match="larger"):
        storage.read_small("m/latest", 3)
    with pytest.raises(BadModelError, match="regular"):
        storage.read_small("m/v1", 3)


def test_many_names_at_once(bucket: Bucket) -> None:
    """Names whose order differs from their keys' order get the same result, listed together or one by one."""
    names = [f"m{end}" for end in ("", "-a", ".b", "0", "_", "-a.c", "a", "-", ".")] + [f"n{n}" for n in range(8)]
    for number, name in enumerate(names):
        for version in range(number % 3 + 1):
            bucket.put(f"{name}/v{version}/model.yaml", name.encode())
    together, alone = opened(bucket), opened(bucket)
    together.prepare(names)
    for name in names:
        assert together.list_folder(name) == alone.list_folder(name), name


def test_a_walk_that_takes_longer_than_a_listing_is_believed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the walk does not take one round trip for each name."""
    names = [f"m-{number:02}" for number in range(60)]
    for name in names:
        bucket.put(f"{name}/v1/model.yaml", b"")
    storage = opened(bucket, ttl=600.0)
    storage.prepare(names)
    bucket.put("m-50/v2/model.yaml", b"")
    asked = []
    list_objects = storage.objects.list_objects

    def counted(prefix: str, **more: str) -> Listing:
        asked.append(prefix)
        return list_objects(prefix, **more)

    def expire() -> None:
        monkeypatch.setattr(storage.listings, "_names", TTLCache(1000, 600.0))
        asked.clear()

    monkeypatch.setattr(storage.objects, "list_objects", counted)
    expire()
    for name in names:
        assert len(storage.list_folder(name)) == (2 if name == "m-50" else 1)
    assert asked[:2] == ["m-00/", "m-01/"], "a few one by one"
    assert len(asked) < 20
    monkeypatch.setattr("bentofs.store.storage.listings._OBJECTS_KEPT", 5)
    expire()
    for name in names:
        assert storage.list_folder(name)
    assert len(asked) == len(names) + 6, "of what is too much each group is tried once"


@pytest.mark.parametrize("path", ["a/../../x", "./x", "a//b", "../x", "a\0b"])
def test_keys_that_are_no_paths(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """S3 allows such keys. The server of these tests stores objects as files and does not, so its answer is changed."""
    bucket.put("m/v1/model.yaml", b"y")
    storage = opened(bucket)
    answer = storage.objects.list_objects("m/")
    answer.objects.append(ObjectInfo(f"m/v1/{path}", 1, "e", 0))
    monkeypatch.setattr(storage.objects, "list_objects", lambda _prefix, **_: answer)
    with pytest.raises(UnsafeMemberError):
        storage.walk("m/v1")


def test_an_identity_is_the_same_in_every_process_and_changes_with_the_bytes(bucket: Bucket) -> None:
    bucket.put("m/v1/model.yaml", b"y")
    bucket.put("m/v1/w", b"1")
    one, two = opened(bucket), opened(bucket)
    (entry,) = (entry for entry in one.walk("m/v1")[0] if entry.path == "w")
    assert entry in two.walk("m/v1")[0]
    assert read(one, entry) == b"1"
    bucket.put("m/v1/w", b"2")
    with pytest.raises(SourceChangedError):
        read(two, entry)
    assert opened(bucket).status("m/v1/w").identity != entry.identity
    (changed,) = (entry for entry in two.walk("m/v1")[0] if entry.path == "w")
    assert read(two, changed) == b"2", "what was found out is not believed any longer"


def test_the_same_bytes_written_again(bucket: Bucket) -> None:
    """Their ETag is the same, but they are listed as another object. A reader of the old one goes on."""
    content = random.Random(3).randbytes(300_000)
    bucket.put("m/v1/w", content)
    storage = opened(bucket, ttl=0.1)
    (first,) = storage.walk("m/v1")[0]
    assert first.identity is not None
    part = bytearray(1000)
    storage.open_file(first.source, first.identity).read_into([memoryview(part)], 0)
    assert part == content[:1000]
    time.sleep(1.1)  # the precision of servers' times
    bucket.put("m/v1/w", content)
    (second,) = storage.walk("m/v1")[0]
    assert second.identity != first.identity
    assert read(storage, second) == content
    assert read(storage, first) == content


def test_a_manifest_speaks_of_the_bytes_it_was_made_for(bucket: Bucket, tmp_path: Path) -> None:
    folder = make_model(tmp_path, "m:v1", {"run": b"#!", "w": b"1", "empty/": b""}, executable=["run"])
    bucket.upload(tmp_path)
    bucket.add_manifest("m:v1", folder)
    bucket.put("m/v1/w", b"2")
    entries = {entry.path: entry for entry in opened(bucket).walk("m/v1")[0]}
    assert entries["run"].executable
    assert entries["run"].crc32 is not None
    assert entries["w"].crc32 is None
    assert entries["empty"].is_folder


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"format": 2}',
        b'{"format": 1, "files": {"w": 1}, "folders": []}',
        b"[" * 100_000,
        b"\xff",
        *(
            b'{"format": 1, "files": {}, "folders": ["good", "%s"]}' % path
            for path in (b"../out", b"a/..", b"/etc", b"a//b", b"a/", b".", b"", b"a\\u0000", b"half \\ud800")
        ),
        b'{"format": 1, "files": {}, "folders": [1]}',
    ],
)
def test_a_manifest_that_is_none(bucket: Bucket, content: bytes) -> None:
    bucket.put("m/v1/model.yaml", b"y")
    bucket.put("m/.v1.bentofs.json", content)
    with pytest.raises(BadModelError, match="cannot be used"):
        opened(bucket).walk("m/v1")


def test_a_catalogue_in_memory(memory: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    noise = random.Random(9).randbytes(3_000_000)
    make_model(tmp_path, "m:v1", {"w": noise, "a/b": b"b"})
    for path in tmp_path.rglob("*"):
        if path.is_file():
            memory.pipe_file(f"/some/models/{path.relative_to(tmp_path)}", path.read_bytes())
    storage = StoreSpec.named("memory://some/models").open_remote()
    store = ModelStore(storage)
    assert store.tags() == [Tag("m", "v1")]
    entries = {entry.path: entry for entry in store.model(Tag("m", "v1")).entries}
    assert read(storage, entries["w"]) == noise
    memory.pipe_file("/some/models/m/v1/a/b", b"c")
    with pytest.raises(SourceChangedError):
        read(storage, entries["a/b"])


@pytest.mark.expect_log("m-7")
def test_all_models_are_fetched_together(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of very many models must not take one round trip after the other."""
    for number in range(20):
        make_model(tmp_path, f"m-{number}:v1", {"w": b"1"})
        bucket.put(f"m-{number}/.v1.bentofs.json", Manifest().encode())
    bucket.upload(tmp_path)
    bucket.put("m-7/v1/model.yaml", b"nonsense")
    storage = opened(bucket)
    fetched: list[str] = []
    now, most = 0, 0
    lock = threading.Lock()
    read_object = storage.objects.read

    def read(wanted: ObjectInfo, start: int, end: int, **_: object) -> bytes | bytearray:
        nonlocal now, most
        with lock:
            fetched.append(wanted.key)
            now += 1
            most = max(most, now)
        time.sleep(0.05)  # a slow server
        with lock:
            now -= 1
        return read_object(wanted, start, end)

    monkeypatch.setattr(storage.objects, "read", read)
    monkeypatch.setattr("bentofs.store.catalog.catalog._LOOKING_SECONDS", 0.0)
    found = [str(model.tag) for model in ModelStore(storage).models()]
    assert found == [f"{name}:v1" for name in sorted(f"m-{number}" for number in range(20) if number != 7)]
    assert most >= 8
    assert len(fetched) == len(set(fetched)) == 40


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert StoreSpec.named("some/where").location == f"{Path.cwd()}/some/where"
    assert StoreSpec.named("file:///some/where").location == "/some/where"
    assert StoreSpec.named("file:///some/where").folder == "/some/where"
    secret = StoreSpec.named("ftp://me:secret@host/x?key=secret", options={"password": "secret"})
    assert secret.location == "ftp://host/x"
    assert secret.folder is None
    assert "secret" not in repr(secret)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(BadLocationError, match=r"nonsense.*not a known protocol"):
        StoreSpec.named("nonsense://x/y")
    with pytest.raises(BadLocationError, match="URL"):
        StoreSpec.named("/some/where", options={"key": "secret"})
    with pytest.raises(RemoteError, match="no_such_option"):
        StoreSpec.named(
            "s3://bucket/x", options={"client_kwargs": {"no_such_option": json.dumps(1)}}, patience=2
        ).open()


def test_credentials_in_the_url(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores take credentials in the URL, like transfers."""
    bucket.put("m/v1/model.yaml", b"y")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    login = f"{bucket.server.access_key}:{quote(bucket.server.secret_key, '')}"
    storage = StoreSpec.named(bucket.url.replace("://", f"://{login}@")).open_remote()
    assert storage.list_folder("") == [("m", Kind.FOLDER)]
    assert bucket.server.secret_key not in storage.location
    with pytest.raises(RemoteDeniedError) as raised:
        StoreSpec.named(bucket.url.replace("://", f"://{bucket.server.access_key}:wrong-secret@")).open_remote()
    assert "wrong-secret" not in str(raised.value)
