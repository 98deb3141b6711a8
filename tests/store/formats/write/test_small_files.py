"""Small files: measured for `.tar.gz` and `.zip` at once."""

import random
import threading
import time
from pathlib import Path

import pytest

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import CancelledError
from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write import deflate
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Codec
from bentofs.store.formats.write.registry import TAR_BZ2, TAR_GZ, ZIP, Format
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model
from tests.store.content import whole
from tests.store.counting import CountingStorage
from tests.waiting import wait_until_settled

_DICE = random.Random(5)
_WORDS = b" ".join(_DICE.choices([b"alpha", b"beta", b"gamma", b"delta", b"42"], k=100_000))
_SIZES = (1, 700, 20_000, 100_000, 250_000)
each_first = pytest.mark.parametrize(
    ("first", "second"), [(TAR_GZ, ZIP), (ZIP, TAR_GZ)], ids=["tar.gz first", "zip first"]
)


def _model(storage: LocalStorage) -> Model:
    return ModelStore(storage).model(Tag("mixed", "v1"))


@pytest.fixture
def storage(store: Path) -> CountingStorage:
    files = {f"{number % 3}/{number}": _WORDS[number:][: _SIZES[number % 5]] for number in range(60)}
    make_model(store, "mixed:v1", {**files, "large": _WORDS, "nothing": b""})
    wait_until_settled(store)
    return CountingStorage(store)


@each_first
def test_are_read_once_for_both_formats(
    storage: CountingStorage, index: Index, tmp_path: Path, first: Format, second: Format
) -> None:
    model = _model(storage)
    alone = Archives(storage, Index(tmp_path / "alone.sqlite"), Compression.AUTO)
    lengths = {kind.name: alone.length(model, kind) for kind in (TAR_GZ, ZIP)}
    alone.close()
    storage.bytes_read.clear()
    archives = Archives(storage, index, Compression.AUTO, formats=[TAR_GZ, ZIP])
    assert archives.length(model, first) == lengths[first.name]
    small = [entry for entry in model.entries if 0 < entry.size < deflate.SMALL]
    assert len(small) == 61
    for entry in small:
        assert storage.bytes_read[entry.source] == entry.size
    archives.close()
    index.flush()
    storage.bytes_read.clear()
    other = Archives(storage, index, Compression.AUTO, formats=[TAR_GZ, ZIP])
    archive = other.open(_model(storage), second)
    assert archive.length == lengths[second.name]
    read_bytes(archive, archive.length - 8, 8)  # a .tar.gz has its checksum there
    assert storage.count() == 0
    assert other.revision == 0
    assert len(whole(archive)) == archive.length
    other.close()


@each_first
def test_are_measured_only_for_the_formats_that_there_are(
    storage: CountingStorage, index: Index, first: Format, second: Format
) -> None:
    for formats in ((), (first,), (first, TAR_BZ2)):
        archives = Archives(storage, index, Compression.AUTO, formats=formats)
        archives.length(_model(storage), first)
        archives.close()
    query = "SELECT content FROM chunk_sizes"
    rows = index._database.run(lambda connection: connection.execute(query).fetchall())
    assert any(f"/{first.part}/" in content for (content,) in rows or ())
    assert not any(f"/{second.part}/" in content for (content,) in rows or ())


def test_are_measured_for_one_format_where_nothing_can_be_kept(
    storage: CountingStorage, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are young: a measurement for the other format would have to measure all again."""
    model = _model(storage)
    deflate.codec_name()  # compresses a sample once in a process
    monkeypatch.setattr(time, "time_ns", lambda: model.newest_ctime_ns + 1_000_000)
    monkeypatch.setattr(deflate, "compress_small", lambda *_: pytest.fail("for a zip"))
    archives = Archives(storage, index, Compression.AUTO, formats=[TAR_GZ, ZIP])
    assert archives.length(model, TAR_GZ) > 0
    archives.close()


def test_are_at_hand_for_both_readers(storage: CountingStorage, index: Index) -> None:
    archives = Archives(storage, index, Compression.AUTO, formats=[TAR_GZ, ZIP])
    archives.length(_model(storage), TAR_GZ)
    storage.bytes_read.clear()
    for kind in (TAR_GZ, ZIP):
        whole(archives.open(_model(storage), kind))
    assert storage.count() == 12, "those of one byte, which a zip stores"
    archives.close()


def test_are_compressed_on_all_cores(storage: CountingStorage, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both formats are compressed at the same time."""
    monkeypatch.setattr("bentofs.store.archives.measuring.CORES", 2)
    monkeypatch.setattr("bentofs.store.archives.measuring._WINDOW", 4)
    compress = ChunkMaker.compress
    lock = threading.Lock()
    now: list[str] = []
    together: set[tuple[str, ...]] = set()

    def watched(maker: ChunkMaker, codec: Codec, content: memoryview, number: int) -> bytes:
        with lock:
            now.append(codec.name)
            together.add(tuple(sorted(now)))
        time.sleep(0.02)  # long enough to meet the other one
        try:
            return compress(maker, codec, content, number)
        finally:
            with lock:
                now.remove(codec.name)

    monkeypatch.setattr(ChunkMaker, "compress", watched)
    archives = Archives(storage, index, Compression.AUTO, formats=[TAR_GZ, ZIP])
    assert archives.length(_model(storage), TAR_GZ) > 0
    archives.close()
    run, file = deflate.run_codec().name, deflate.small_codec().name
    assert (run, file) in together
    assert all(len(names) <= 3 for names in together), "two helpers, and who asked"


@pytest.mark.parametrize(("count", "size"), [(1000, 2000), (300, 100_000)])
def test_are_given_up_when_the_process_ends(store: Path, index: Index, count: int, size: int) -> None:
    make_model(store, "many:v1", {f"{number:03}": _WORDS[number:][:size] for number in range(count)})
    wait_until_settled(store)
    model = ModelStore(LocalStorage(str(store))).model(Tag("many", "v1"))
    storage = CountingStorage(store)
    archives = Archives(storage, index, Compression.AUTO, formats=[TAR_GZ, ZIP])

    def look(source: str) -> None:
        if source.endswith("020"):
            archives.close()

    storage.before_read = look
    with pytest.raises(CancelledError):
        archives.length(model, TAR_GZ)
    assert storage.count() < model.size * 0.9
    query = "SELECT * FROM chunk_sizes"
    assert index._database.run(lambda connection: connection.execute(query).fetchall()) == []
