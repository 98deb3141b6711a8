"""Later: the other format is measured when nobody reads, once, and for whoever waits for it."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentofs.store.archives import compression
from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.index import Index
from bentofs.store.archives.later import Later
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.formats.write.registry import TAR_GZ, ZIP
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from tests.harness import make_model, wait_until
from tests.store.content import whole
from tests.store.counting import CountingStorage
from tests.waiting import wait_until_settled

_DICE = random.Random(5)
_WORDS = b" ".join(_DICE.choices([b"alpha", b"beta", b"gamma", b"delta", b"42"], k=20_000))


@pytest.fixture
def storage(store: Path, monkeypatch: pytest.MonkeyPatch) -> CountingStorage:
    monkeypatch.setattr(compression, "_LITTLE", 1 << 20)
    make_model(store, "mixed:v1", {f"{number:02}": _WORDS[number:][:50_000] for number in range(40)})
    wait_until_settled(store)
    return CountingStorage(store)


@pytest.fixture
def later() -> Iterator[Later]:
    later = Later()
    yield later
    later.stop()
    _wait_until_ended()


@pytest.fixture
def archives(storage: CountingStorage, index: Index, later: Later) -> Iterator[Archives]:
    archives = Archives(storage, index, Compression.AUTO, formats=[TAR_GZ, ZIP], later=later)
    yield archives
    later.stop()
    archives.close()


def _model(storage: CountingStorage) -> Model:
    return ModelStore(storage).model(Tag("mixed", "v1"))


def _never() -> bool:
    return False


def _wait_until_ended() -> None:
    def is_ended() -> bool:
        return not any(thread.name == "measure-later" for thread in threading.enumerate())

    wait_until(is_ended, 20, "the thread ends")


def test_the_other_format_is_measured_when_nobody_reads(
    storage: CountingStorage, archives: Archives, later: Later, tmp_path: Path
) -> None:
    model = _model(storage)
    later.start(archives, _never)
    assert archives.length(model, TAR_GZ) > 0
    read = storage.count()
    assert read <= model.size * 1.2, "once, and a sample"
    wait_until(lambda: archives.is_length_known(model, ZIP), 20, "the zip is measured")
    storage.bytes_read.clear()
    length = archives.length(model, ZIP)
    assert storage.count() == 0
    alone = Archives(storage, Index(tmp_path / "alone.sqlite"), Compression.AUTO)
    assert alone.length(model, ZIP) == length == len(whole(archives.open(model, ZIP)))
    alone.close()


def test_it_waits_while_others_read(storage: CountingStorage, archives: Archives, later: Later) -> None:
    """Each request looks at the same moment as the thread; a pause of the requests lets it begin."""
    model = _model(storage)
    asked = threading.Semaphore(0)
    busy = True

    def is_busy() -> bool:
        asked.release()
        return busy

    later.start(archives, is_busy)
    archives.length(model, TAR_GZ)
    for _ in range(5):
        assert asked.acquire(timeout=20)
    assert not archives.is_length_known(model, ZIP)
    busy = False
    wait_until(lambda: archives.is_length_known(model, ZIP), 20, "the zip is measured")


def test_a_stat_that_comes_meanwhile_waits_for_it_and_nothing_is_measured_twice(
    storage: CountingStorage, archives: Archives, later: Later
) -> None:
    """From the first file on, the system is busy: only the waiting `stat` lets the thread go on."""
    model = _model(storage)
    archives.length(model, TAR_GZ)
    storage.bytes_read.clear()
    begun = threading.Event()
    storage.before_read = lambda _source: begun.set()
    later.start(archives, begun.is_set)
    assert begun.wait(20)
    length = archives.length(model, ZIP)
    assert storage.count() == model.size
    assert length == len(whole(archives.open(model, ZIP)))


@pytest.mark.parametrize("when", ["before", "during"])
def test_it_ends_with_the_mount(storage: CountingStorage, archives: Archives, later: Later, when: str) -> None:
    model = _model(storage)
    archives.length(model, TAR_GZ)
    begun = threading.Event()
    storage.before_read = lambda _source: begun.set()
    is_busy: Callable[[], bool] = begun.is_set if when == "during" else lambda: True
    later.start(archives, is_busy)
    if when == "during":
        assert begun.wait(20)
    later.stop()
    _wait_until_ended()
    assert not archives.is_length_known(model, ZIP)


def test_a_model_that_is_gone_is_forgotten(storage: CountingStorage, archives: Archives, later: Later) -> None:
    model = _model(storage)
    archives.length(model, TAR_GZ)
    archives.forget(model.tag)
    storage.bytes_read.clear()
    later.start(archives, _never)
    later.stop()
    _wait_until_ended()
    assert storage.count() == 0
