"""The memory and files that the recorder holds while it waits."""

import datetime
import functools
import gc
import hashlib
import os
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.formats.crc32 import crc32
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.baseline_recorder import Recorder
from bentofs.store.model.model import Model, ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.storage.base import Entry, Identity
from bentofs.store.storage.entries import Entries
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.pinned import OpenFiles
from tests.harness import CREATION_TIME, make_model, remove_model, wait_until
from tests.waiting import wait_until_settled


def test_memory_is_bounded_however_many_models_are_opened(store: Path, tmp_path: Path) -> None:
    """The models are never measured. Example: all `.tar`s are copied."""
    digests = Baseline(tmp_path / "digests.sqlite")
    recorder = Recorder(LocalStorage(str(store)), digests)
    entries = Entries.of(Entry(f"{n}", False, False, Identity(1, n, 1, 1, 1), f"m/{n}") for n in range(10_000))
    now = datetime.datetime.now(datetime.timezone.utc)
    held: list[weakref.ref[Model]] = []
    for number in range(100):
        for _ in range(2):
            model = Model(ModelInfo(Tag("m", f"v{number}"), "", now, {}), entries, 1)
            recorder.consider(model)
            held.append(weakref.ref(model))
    del model
    gc.collect()
    living = [each for each in held if each() is not None]
    assert living == held[-11::2], "six of 10,000 files each, the last ones"
    recorder.stop()
    digests.close()


def test_no_file_stays_open_while_the_mount_is_busy(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted model's disk space is freed."""
    weights = make_model(store, "m:v1", {"w": os.urandom(3_000_000)}) / "w"
    monkeypatch.setattr(
        "bentofs.store.integrity.baseline_recorder.OpenFiles", functools.partial(OpenFiles, seconds=0.1)
    )
    digests = Baseline(tmp_path / "digests.sqlite")
    storage = LocalStorage(str(store))
    model = ModelStore(storage).model(Tag("m", "v1"))
    recorder = Recorder(storage, digests)
    find = ModelStore(storage).model
    recorder.start(
        lambda _model: True, lambda: _is_open(weights), find, lambda _files: {}
    )  # busy until it closes the file
    recorder.consider(model)
    wait_until(
        lambda: digests.of(str(store), model.tag, model.info.creation_time), 30, "the file is closed, and all recorded"
    )
    recorder.stop()
    digests.close()


def test_a_model_that_is_replaced_just_before_it_is_recorded(store: Path, tmp_path: Path) -> None:
    """Both have one creation time. A record of the first would be taken for one of the second."""

    class ReplacedFirst(Baseline):
        """A baseline in which an import comes before the first record."""

        is_replaced = False

        def record(self, store: str, tag: Tag, created: datetime.datetime, *rest: Any, **options: Any) -> bool:
            if not self.is_replaced:
                self.is_replaced = True
                remove_model(Path(store), str(tag))
                make_model(Path(store), str(tag), {"w": b"new"})
                self.forget(store, str(tag), lambda: True)
            return super().record(store, tag, created, *rest, **options)

    make_model(store, "m:v1", {"w": b"old"})
    digests = ReplacedFirst(tmp_path / "digests.sqlite")
    storage = LocalStorage(str(store))
    models, wanted = ModelStore(storage), hashlib.sha256(b"new").hexdigest()
    recorder = Recorder(storage, digests)
    recorder.start(lambda _model: True, lambda: False, functools.partial(models.model, max_age=0), lambda _files: {})
    recorder.consider(models.model(Tag("m", "v1")))
    wait_until(lambda: digests.is_replaced, 30, "the first one was read")
    recorder.note_import(Tag("m", "v1"))
    created = datetime.datetime.fromisoformat(CREATION_TIME)
    wait_until(
        lambda: digests.of(str(store), Tag("m", "v1"), created).get(b"w") == wanted, 30, "the second one is recorded"
    )
    recorder.stop()
    digests.close()


def test_the_record_of_the_model_that_replaced_it_stays(store: Path, tmp_path: Path) -> None:
    """Another process has imported and recorded it, while the recorder read the one before."""
    tag = Tag("m", "v1")

    class ReplacedFirst(Baseline):
        """A baseline in which an import with its record comes before the first record of the recorder."""

        is_replaced, has_ended = False, False

        def record(self, store: str, tag: Tag, created: datetime.datetime, *rest: Any, **options: Any) -> bool:
            if self.is_replaced:
                return super().record(store, tag, created, *rest, **options)
            self.is_replaced = True
            remove_model(Path(store), str(tag))
            make_model(Path(store), str(tag), {"w": b"new"})
            super().record(store, tag, newer, {b"w": "new"})
            try:
                return super().record(store, tag, created, *rest, **options)
            finally:
                self.has_ended = True

    make_model(store, "m:v1", {"w": b"old"})
    storage = LocalStorage(str(store))
    models = ModelStore(storage)
    model = models.model(tag)
    newer = model.info.creation_time + datetime.timedelta(seconds=1)
    digests = ReplacedFirst(tmp_path / "digests.sqlite")
    recorder = Recorder(storage, digests)
    recorder.start(lambda _model: True, lambda: False, functools.partial(models.model, max_age=0), lambda _files: {})
    recorder.consider(model)
    wait_until(lambda: digests.has_ended, 30, "the first one was read")
    recorder.stop()
    assert digests.of(str(store), tag, newer) == {b"w": "new"}
    assert digests.rows_by_tag(str(store)) == {"m:v1": 1}
    digests.close()


@pytest.mark.expect_log("m:v1 is damaged: its file w ")
def test_a_file_that_was_damaged_after_its_import(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk keeps its times. What it holds now must not be taken for what was imported."""
    weights = make_model(store, "m:v1", {"w": b"damaged"}) / "w"
    make_model(store, "n:v1", {"w": b"as it came"})
    wait_until_settled(store / "m/v1", store / "n/v1")
    digests, index = Baseline(tmp_path / "digests.sqlite"), Index(tmp_path / "index.sqlite")
    measurements = Measurements(index)
    measurements.keep_crc32(Identity.of(weights.stat()), crc32(b"as it came"), time.time_ns())
    measurements.keep_crc32(Identity.of((store / "n/v1/w").stat()), crc32(b"as it came"), time.time_ns())
    storage = LocalStorage(str(store))
    recorder = Recorder(storage, digests)
    recorder.start(lambda _model: True, lambda: False, ModelStore(storage).model, measurements.known)
    recorder.note_import(Tag("m", "v1"))
    recorder.note_import(Tag("n", "v1"))
    wait_until(lambda: digests.rows_by_tag(str(store)), 30, "a model is recorded")
    assert digests.rows_by_tag(str(store)) == {"n:v1": 2}
    assert "m:v1 is damaged: its file w " in caplog.text
    recorder.stop()
    digests.close()
    index.close()


def _is_open(path: Path) -> bool:
    wanted = path.stat()
    for number in os.listdir("/proc/self/fd"):
        try:
            look = os.stat(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if (look.st_dev, look.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False
