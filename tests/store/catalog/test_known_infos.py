"""The fields of `model.yaml` are kept between processes. They never answer for a file from which they were not read."""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from bentofs.store.archives.index import Index, default_path
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.clients.objects import ObjectInfo
from bentofs.store.model.model import ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.open import StoreSpec
from bentofs.store.storage.timestamps import is_settled
from bentofs.store.upkeep.clean import Upkeep
from bentofs.store.upkeep.report import Kept
from tests.buckets import Bucket
from tests.servers import SeaweedServer

_MODEL_YAML = """name: {name}
version: {version}
module: {module}
labels: {labels}
options: {{}}
metadata: {{}}
context: {{framework_name: '', framework_versions: {{}}, bentoml_version: 1.4.39, python_version: 3.11.7}}
signatures: {{}}
api_version: v1
creation_time: '2026-01-02T03:04:05.678901+00:00'
"""


def model_yaml(tag: str, module: str = "one", labels: str = "{}") -> bytes:
    name, version = tag.split(":")
    return _MODEL_YAML.format(name=name, version=version, module=module, labels=labels).encode()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the index lie below the test's own directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def bucket(seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket(seaweed)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    for tag in ("a:v1", "a:v2", "b:v1"):
        made.put(f"{tag.replace(':', '/')}/model.yaml", model_yaml(tag))
    return made


def modules(url: str) -> tuple[dict[str, str], list[str]]:
    """List a store as a new process does. Return the module of each model, and the keys of the objects that were
    read."""
    storage = StoreSpec.named(url).open_remote()
    read: list[str] = []
    of_objects = storage.objects.read

    def counted(wanted: ObjectInfo, start: int, end: int, **_: object) -> bytes | bytearray:
        read.append(wanted.key)
        return of_objects(wanted, start, end)

    storage.objects.read = counted  # type: ignore[method-assign]
    with contextlib.closing(Index(store=storage.location)) as index:
        found = {str(model.tag): model.info.module for model in ModelStore(storage, infos=index).models()}
    return found, sorted(read)


def rows() -> int:
    with contextlib.closing(sqlite3.connect(default_path())) as connection:
        return int(connection.execute("SELECT count(*) FROM model_infos").fetchone()[0])


@pytest.mark.expect_log("broken:v1 is left out")
def test_a_second_listing_reads_no_model_yaml(bucket: Bucket) -> None:
    labels = r'{k: "\ud800", "ü": "1", n: 7}'
    bucket.put("c/v1/model.yaml", model_yaml("c:v1", labels=labels))
    bucket.put("broken/v1/model.yaml", b"name: other")
    yamls = ["a/v1/model.yaml", "a/v2/model.yaml", "b/v1/model.yaml", "c/v1/model.yaml"]
    first, read = modules(bucket.url)
    assert sorted(set(read)) == sorted([*yamls, "broken/v1/model.yaml"])
    assert first == dict.fromkeys(("a:v1", "a:v2", "b:v1", "c:v1"), "one")
    assert modules(bucket.url) == (first, ["broken/v1/model.yaml"]), "what is not known is read"
    with contextlib.closing(Index(store=bucket.url)) as index:
        known = ModelStore(StoreSpec.named(bucket.url).open(), infos=index)
        anew = ModelStore(StoreSpec.named(bucket.url).open())
        assert [model.info for model in known.models()] == [model.info for model in anew.models()]


def test_a_model_that_was_replaced_by_one_of_the_same_size(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines list one bucket. Each sees the new model, whichever replaced it."""
    machines = [str(tmp_path / "machine-1"), str(tmp_path / "machine-2")]
    for module in ("two", "one"):
        bucket.put("a/v1/model.yaml", model_yaml("a:v1", module))
        for machine in machines:
            monkeypatch.setenv("XDG_CACHE_HOME", machine)
            found, read = modules(bucket.url)
            assert found == {"a:v1": module, "a:v2": "one", "b:v1": "one"}
            assert "a/v1/model.yaml" in read
            assert modules(bucket.url) == (found, [])


def test_a_model_yaml_that_is_replaced_while_it_is_read(bucket: Bucket) -> None:
    """Nobody knows which one was read. So it is not kept for either."""
    storage = StoreSpec.named(bucket.url, ttl=600.0).open_remote()
    with contextlib.closing(Index(store=storage.location)) as index:
        models = ModelStore(storage, infos=index)
        assert models.name_count() == 2
        storage.prepare(["a", "b"])  # lists them
        bucket.put("b/v1/model.yaml", model_yaml("b:v1", "two"))
        assert [model.info.module for model in models.models()] == ["one", "one", "two"]
    found, read = modules(bucket.url)
    assert found["b:v1"] == "two"
    assert set(read) <= {"b/v1/model.yaml"}


@pytest.mark.parametrize(
    "row",
    [
        "",
        "{",
        "7",
        "[]",
        "[" * 5000,
        '[2,"a:v1","m","2026-01-02T03:04:05+00:00",{}]',
        '[1,"a:v2","m","2026-01-02T03:04:05+00:00",{}]',
        '[1,"a:v1",3,"2026-01-02T03:04:05+00:00",{}]',
        '[1,"a:v1","m","2026-01-02T03:04:05",{}]',
        '[1,"a:v1","m","yesterday",{}]',
        '[1,"a:v1","m",7,{}]',
        '[1,"a:v1","m","2026-01-02T03:04:05+00:00",[]]',
        '[1,"a:v1","m","2026-01-02T03:04:05+00:00",{"k":1}]',
    ],
)
def test_a_row_that_is_damaged(memory: str, row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.store.clients.fsspec_files.FsspecFiles.has_etags", True)
    expected = modules(memory)
    with contextlib.closing(sqlite3.connect(default_path())) as connection, connection:
        assert connection.execute("UPDATE model_infos SET info=?", (row,)).rowcount == 1
    assert modules(memory) == expected
    assert modules(memory)[1] == [], "it was replaced"


@pytest.mark.expect_log("is damaged .* measured again")
def test_an_index_that_is_damaged(bucket: Bucket) -> None:
    expected = modules(bucket.url)
    default_path().write_bytes(b"no database " * 1000)
    assert modules(bucket.url) == expected
    assert modules(bucket.url) == (expected[0], [])


@pytest.fixture
def memory() -> Iterator[str]:
    """A store on fsspec's file system in memory, which has no ETags."""
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/some/models/a/v1/model.yaml", model_yaml("a:v1"))
    yield "memory://some/models"
    fs.rm("/some", recursive=True)


def test_files_without_etags_are_read_each_time(memory: str) -> None:
    for _ in range(2):
        assert modules(memory) == ({"a:v1": "one"}, ["a/v1/model.yaml"])
    assert rows() == 0


def test_what_is_too_long_is_not_kept(bucket: Bucket) -> None:
    bucket.put("a/v1/model.yaml", model_yaml("a:v1", labels=f"{{k: {'x' * 5000}}}"))
    for read in (["a/v1/model.yaml", "a/v2/model.yaml", "b/v1/model.yaml"], ["a/v1/model.yaml"]):
        assert modules(bucket.url)[1] == read


def test_the_number_of_rows_is_bounded(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.store.archives.index._INFOS_KEPT", 2)
    modules(bucket.url)
    assert rows() == 2
    bucket.put("a/v1/model.yaml", model_yaml("a:v1", "two"))
    assert modules(bucket.url)[0] == {"a:v1": "two", "a:v2": "one", "b:v1": "one"}
    assert rows() == 2


def test_clean_removes_the_rows_of_models_that_are_gone(bucket: Bucket) -> None:
    modules(bucket.url)
    bucket.delete("a/v1/model.yaml")
    bucket.put("a/v2/model.yaml", model_yaml("a:v2", "two"))
    expected = modules(bucket.url)[0]
    assert rows() == 4
    spec = StoreSpec.named(bucket.url)
    for named, dry_run, left in (([], False, 4), ([spec], True, 4), ([spec], False, 2)):
        (line,) = (
            line for line in Upkeep(named, None, (), dry_run=dry_run, gone=False).run() if line.kept is Kept.INDEX
        )
        assert f"4 rows, {2 if named else 0} of files" in line.note
        assert rows() == left
    assert modules(bucket.url) == (expected, [])


def local_modules(store: Path) -> dict[str, str]:
    """List a store in a directory as a new process does. Return the module of each model."""
    with contextlib.closing(Index(store=str(store))) as index:
        models = ModelStore(LocalStorage(str(store)), infos=index).models()
        return {str(model.tag): model.info.module for model in models}


def save(store: Path, tag: str, module: str = "one") -> Path:
    """Write a model the way BentoML does, with the times of an older file. Return its `model.yaml`."""
    folder = store / tag.replace(":", "/")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.yaml"
    file.write_bytes(model_yaml(tag, module))
    for path in (file, folder):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return file


def await_settled(file: Path) -> None:
    """Wait until a later change of the file gets another time."""
    while not is_settled(file.stat().st_ctime_ns, time.time_ns()):
        time.sleep(0.005)


def test_a_store_in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process parses nothing but what has changed, even if the size and the mtime did not."""
    store = tmp_path / "models"
    await_settled(save(store, "a:v1"))
    await_settled(save(store, "b:v1"))
    parsed: list[str] = []
    parse = ModelInfo.parse

    def counted(tag: Tag, content: bytes) -> ModelInfo:
        parsed.append(str(tag))
        return parse(tag, content)

    monkeypatch.setattr(ModelInfo, "parse", counted)
    expected = {"a:v1": "one", "b:v1": "one"}
    assert local_modules(store) == expected
    assert parsed == ["a:v1", "b:v1"]
    assert local_modules(store) == expected
    assert parsed == ["a:v1", "b:v1"], "both were known"
    await_settled(save(store, "b:v1", "two"))
    assert local_modules(store) == {"a:v1": "one", "b:v1": "two"}
    assert parsed == ["a:v1", "b:v1", "b:v1"]


def test_a_model_yaml_that_was_written_just_now(tmp_path: Path) -> None:
    """A write within the same tick of the clock leaves the same times. So nothing is kept."""
    store = tmp_path / "models"
    file = save(store, "a:v1")
    storage = LocalStorage(str(store))
    status = storage.status("a/v1/model.yaml")
    assert not storage.pins_content("a/v1/model.yaml", status.identity, file.stat().st_ctime_ns + 1)


@pytest.mark.expect_log("is of another model")
def test_a_directory_that_was_renamed(tmp_path: Path) -> None:
    """The file keeps its identity, and belongs to no model of its new name."""
    store = tmp_path / "models"
    await_settled(save(store, "a:v1"))
    assert local_modules(store) == {"a:v1": "one"}
    os.rename(store / "a", store / "b")
    assert local_modules(store) == {}
