"""What the recorder holds while it waits."""

import datetime
import gc
import weakref
from pathlib import Path

from store.digests import Digests
from store.model import Model, ModelInfo
from store.recorder import Recorder
from store.storage.base import Entry, Identity
from store.storage.local import LocalStorage
from store.tag import Tag


def test_memory_is_bounded_however_many_models_are_opened(store: Path, tmp_path: Path) -> None:
    """Of those that are never measured, as when all `.tar`s are copied."""
    digests = Digests(tmp_path / "digests.sqlite")
    recorder = Recorder(LocalStorage(str(store)), digests)
    entries = tuple(Entry(f"{n}", False, False, Identity(1, n, 1, 1, 1), f"{n}") for n in range(10_000))
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
    assert living == held[-19::2], "ten of 10,000 files each, the last ones"
    recorder.stop()
    digests.close()
