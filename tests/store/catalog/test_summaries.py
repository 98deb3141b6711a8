"""Summaries say the same as looks at whole models, and show the same models."""

import contextlib
import json
import threading
from pathlib import Path

import pytest

from bentofs.store.archives.index import Index
from bentofs.store.catalog import ahead
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.clients.objects import ObjectInfo
from bentofs.store.errors import StoreUnreadableError
from bentofs.store.model.model import ModelInfo, Summary
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Totals
from bentofs.store.storage.open import StoreSpec
from tests.buckets import Bucket
from tests.servers import SeaweedServer
from tests.store.catalog.test_known_infos import model_yaml

_MANIFEST = json.dumps({"format": 1, "files": {}, "folders": ["empty"]}).encode()


@pytest.fixture
def bucket(seaweed: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = Bucket(seaweed)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    for tag in ("a:v1", "a:v2", "b:v1"):
        made.put(f"{tag.replace(':', '/')}/model.yaml", model_yaml(tag))
    made.put("a/v1/deep/weights", bytes(1000))
    made.put("a/v1/.hidden", b"")
    made.put("a/.v1.bentofs.json", _MANIFEST)
    made.put("a/v3/weights", b"has no model.yaml")
    return made


def summaries(url: str) -> tuple[list[Summary], list[str]]:
    """List a store as a new process does. Return the summaries, and the keys of the objects that were read."""
    storage = StoreSpec.named(url).open_remote()
    read: set[str] = set()
    of_objects = storage.objects.read

    def noted(wanted: ObjectInfo, start: int, end: int, **_: object) -> bytes | bytearray:
        read.add(wanted.key)
        return of_objects(wanted, start, end)

    storage.objects.read = noted  # type: ignore[method-assign]
    with contextlib.closing(Index(store=storage.location)) as index:
        return list(ModelStore(storage, infos=index).summaries()), sorted(read)


def models(url: str) -> list[Summary]:
    return [Summary.of(model) for model in ModelStore(StoreSpec.named(url).open()).models()]


def test_the_second_list_reads_no_object(bucket: Bucket) -> None:
    yamls = ["a/v1/model.yaml", "a/v2/model.yaml", "b/v1/model.yaml"]
    found, read = summaries(bucket.url)
    assert read == ["a/.v1.bentofs.json", *yamls]
    assert found == models(bucket.url)
    assert [(str(each.tag), each.file_count) for each in found] == [("a:v1", 3), ("a:v2", 1), ("b:v1", 1)]
    assert found[0].size == 1000 + len(model_yaml("a:v1"))
    assert summaries(bucket.url) == (found, [])


def test_a_model_yaml_is_parsed_while_the_next_ones_come(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "NAMES_TOGETHER", 1)
    storage = StoreSpec.named(bucket.url).open_remote()
    of_objects, parse = storage.objects.read, ModelInfo.parse
    is_read = threading.Event()
    together = []

    def noted(wanted: ObjectInfo, start: int, end: int, **_: object) -> bytes | bytearray:
        if wanted.key == "b/v1/model.yaml":
            is_read.set()
        return of_objects(wanted, start, end)

    def parsed(tag: Tag, content: bytes) -> ModelInfo:
        if tag == Tag("a", "v2"):
            together.append(is_read.wait(20))
        return parse(tag, content)

    monkeypatch.setattr(storage.objects, "read", noted)
    monkeypatch.setattr(ModelInfo, "parse", parsed)
    assert [str(each.tag) for each in ModelStore(storage).summaries()] == ["a:v1", "a:v2", "b:v1"]
    assert together == [True]


def test_changes_by_others_are_seen(bucket: Bucket) -> None:
    summaries(bucket.url)
    bucket.put("a/v2/weights", bytes(7))
    bucket.put("b/v1/model.yaml", model_yaml("b:v1", "two"))
    bucket.put("c/v1/model.yaml", model_yaml("c:v1"))
    bucket.delete("a/v1/model.yaml")
    found, read = summaries(bucket.url)
    assert read == ["b/v1/model.yaml", "c/v1/model.yaml"]
    assert found == models(bucket.url)
    assert [(str(each.tag), each.file_count) for each in found] == [("a:v2", 2), ("b:v1", 1), ("c:v1", 1)]
    assert found[1].info.module == "two"


@pytest.mark.expect_log("a:v1 is left out")
def test_a_manifest_that_becomes_unusable(bucket: Bucket) -> None:
    summaries(bucket.url)
    bucket.put("a/.v1.bentofs.json", b"{}")
    for _ in range(2):
        found, read = summaries(bucket.url)
        assert read == ["a/.v1.bentofs.json"], "it is looked at each time"
        assert [str(each.tag) for each in found] == ["a:v2", "b:v1"]
    bucket.put("a/.v1.bentofs.json", _MANIFEST)
    assert len(summaries(bucket.url)[0]) == 3


@pytest.mark.expect_log("is left out")
def test_models_that_cannot_be_shown(bucket: Bucket) -> None:
    bucket.put("b/v2/model.yaml", b"name: other")
    for _ in range(2):
        assert [str(each.tag) for each in summaries(bucket.url)[0]] == ["a:v1", "a:v2", "b:v1"]


@pytest.mark.expect_log("b:v1 is left out")
def test_a_failing_server_is_no_shorter_list(bucket: Bucket) -> None:
    """Models that cannot be read are not taken for missing ones: the others come, and then the error."""
    storage = StoreSpec.named(bucket.url).open_remote()
    listed = storage.totals
    storage.totals = lambda path: _fail() if path == "b/v1" else listed(path)  # type: ignore[method-assign]
    found: list[str] = []
    with pytest.raises(StoreUnreadableError, match="server is in trouble"):
        found.extend(str(each.tag) for each in ModelStore(storage).summaries())
    assert found == ["a:v1", "a:v2"]


def _fail() -> Totals:
    raise StoreUnreadableError("the server is in trouble")
