"""Compressed archives of a real store: compressed parts, one measurement, cached sizes, and no wrong size."""

import gzip
import io
import logging
import os
import random
import subprocess
import threading
import time
import zipfile
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import MAX_FILE, MAX_MODEL, Compression, packings
from bentofs.store.archives.index import ChunkSizes, Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import CancelledError, SourceChangedError
from bentofs.store.formats.write import deflate
from bentofs.store.formats.write.members import Packing
from bentofs.store.formats.write.registry import FORMATS, TAR_BZ2, TAR_GZ, ZIP, Format
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model
from tests.store.content import whole
from tests.store.counting import CountingStorage
from tests.waiting import wait_until_settled

_DICE = random.Random(5)
_WORDS = b" ".join(_DICE.choices([b"alpha", b"beta", b"gamma", b"delta", b"42"], k=500_000))
_NOISE = _DICE.randbytes(2_500_000)
_FILES: dict[str | bytes, bytes | int] = {
    "words": _WORDS,
    "noise": _NOISE,
    "small": b"text " * 1000,
    "small noise": _DICE.randbytes(5000),
    "nothing": b"",
}


@pytest.fixture
def storage(store: Path) -> CountingStorage:
    make_model(store, "mixed:v1", _FILES)
    wait_until_settled(store)
    return CountingStorage(store)


@pytest.fixture
def archives(storage: CountingStorage, index: Index) -> Iterator[Archives]:
    archives = Archives(storage, index, Compression.AUTO)
    yield archives
    archives.close()


def _model(storage: LocalStorage) -> Model:
    return ModelStore(storage).model(Tag("mixed", "v1"))


def _methods(archive: bytes) -> dict[str, int]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        return {info.filename: info.compress_type for info in opened.infolist()}


@pytest.mark.parametrize("compression", Compression)
def test_what_is_compressed(storage: CountingStorage, index: Index, compression: Compression) -> None:
    archives = Archives(storage, index, compression)
    methods = _methods(whole(archives.open(_model(storage), ZIP)))
    deflated = {name for name, method in methods.items() if method == zipfile.ZIP_DEFLATED}
    assert deflated == (set() if compression is Compression.NEVER else {"words", "small", "model.yaml"})
    sizes = {name: archives.length(_model(storage), kind) for name, kind in FORMATS.items()}
    total = len(_WORDS) + len(_NOISE)
    for name, size in sizes.items():
        by_auto = name not in ("tar", "bentomodel") and compression is Compression.AUTO
        compressed = by_auto or name == "tar.bz2" or (compression is Compression.ALWAYS and name != "tar")
        assert (size < total - len(_WORDS) // 2) is compressed, name
    archives.close()


@given(st.lists(st.integers(0, 1 << 31) | st.integers(0, 1 << 19), max_size=50))
def test_auto_is_bounded_and_prefers_what_is_small(sizes: list[int]) -> None:
    found = packings(sizes, Compression.AUTO)
    taken = [size for size, packing in zip(sizes, found, strict=True) if packing is not Packing.STORED]
    left = [size for size, packing in zip(sizes, found, strict=True) if packing is Packing.STORED]
    assert sum(taken) <= MAX_MODEL
    assert max(taken, default=0) <= MAX_FILE
    if left and min(left) <= MAX_FILE:
        assert sum(taken) + min(left) + (48 << 10) * len(sizes) > MAX_MODEL, "there was room for it"
        assert max(taken, default=0) <= min(left)
    for size, packing in zip(sizes, packings(sizes, Compression.ALWAYS), strict=True):
        assert packing is (Packing.SMALL if size < deflate.SMALL else Packing.LARGE)


def test_one_measurement_serves_both_formats_and_the_next_process(
    storage: CountingStorage, index: Index, archives: Archives
) -> None:
    model = _model(storage)
    lengths = {kind.name: archives.length(model, kind) for kind in (TAR_GZ, ZIP)}
    assert storage.count("words") <= len(_WORDS) * 1.1, "read once, and a sample"
    assert storage.count("/noise") <= len(_NOISE) * 0.1, "only a sample"
    storage.bytes_read.clear()
    other = Archives(storage, index, Compression.AUTO)
    assert {kind.name: other.length(_model(storage), kind) for kind in (TAR_GZ, ZIP)} == lengths
    assert storage.count() == 0
    other.close()


def test_what_was_measured_just_now_is_not_compressed_again(storage: CountingStorage, archives: Archives) -> None:
    archive = archives.open(_model(storage), TAR_GZ)
    storage.bytes_read.clear()
    assert len(gzip.decompress(whole(archive))) > len(_WORDS) + len(_NOISE)
    assert storage.count("words") == storage.count("small") == 0


def test_ten_thousand_small_files_come_out_no_larger_than_pigz_makes_them(
    store: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is not asked for each file."""
    files = {
        f"{number % 40}/{number}.json": b'{"number": %d}' % number + _WORDS[number:][:40] for number in range(10_000)
    }
    folder = make_model(store, "mixed:v1", files)
    archives = Archives(LocalStorage(str(store)), index, Compression.AUTO)
    monkeypatch.setattr(index, "checksum", lambda _: pytest.fail("one by one"))
    length = archives.length(_model(LocalStorage(str(store))), TAR_GZ)
    peer = subprocess.run(f"tar -c -C '{folder}' . | pigz -1 | wc -c", shell=True, capture_output=True, check=True)
    assert 10_000 < length <= int(peer.stdout)
    archives.close()


def test_auto_and_always_decide_each_for_itself(storage: CountingStorage, index: Index, tmp_path: Path) -> None:
    """The result does not depend on the mode that measured first, in one index."""
    wanted = {}
    for compression in (Compression.AUTO, Compression.ALWAYS):
        alone = Archives(storage, Index(tmp_path / compression.value / "index.sqlite"), compression)
        wanted[compression] = [whole(alone.open(_model(storage), kind)) for kind in (TAR_GZ, ZIP)]
        alone.close()
    for compression in (Compression.AUTO, Compression.ALWAYS, Compression.AUTO):
        archives = Archives(storage, index, compression)
        assert [whole(archives.open(_model(storage), kind)) for kind in (TAR_GZ, ZIP)] == wanted[compression]
        archives.close()


@pytest.mark.parametrize("how", ["a size", "too many", "too few", "nonsense", "an effort"])
@pytest.mark.parametrize("kind", [TAR_GZ, ZIP], ids=["tar.gz", "zip"])
def test_wrong_sizes_in_the_index_are_an_error_once_and_never_wrong_bytes(
    storage: CountingStorage, index: Index, kind: object, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert kind in (TAR_GZ, ZIP)
    kind = TAR_GZ if kind is TAR_GZ else ZIP
    archives = Archives(storage, index, Compression.AUTO)
    right = whole(archives.open(_model(storage), kind))
    query = "SELECT content, codec, effort, worth_it, sizes FROM chunk_sizes"
    rows = index._database.run(lambda connection: connection.execute(query).fetchall())
    assert rows
    for content, codec, effort, worth_it, sizes in rows:
        if how == "a size" and sizes:
            sizes = bytes([sizes[0] ^ 1]) + sizes[1:]
        elif how == "too many":
            sizes += b"\1\0\0\0"
        elif how == "too few":
            sizes = sizes[4:]
        elif how == "nonsense":
            sizes = b"\0" * len(sizes)
        elif how == "an effort" and effort:
            effort = 99
        index.keep_chunk_sizes([(content, codec, ChunkSizes(effort, bool(worth_it), array("I", sizes)))])
    other = Archives(storage, index, Compression.AUTO)
    caplog.set_level(logging.INFO)
    for _ in range(4):  # each wrong part is found by itself
        revision = other.revision
        try:
            assert whole(other.open(_model(storage), kind)) == right
            break
        except SourceChangedError:
            assert how in ("a size", "too few")
            assert other.revision > revision
    else:
        pytest.fail("it was never measured again")
    assert other.length(_model(storage), kind) == len(right)
    for each in (archives, other):
        each.close()


def test_another_codec_measures_anew(
    storage: CountingStorage, index: Index, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = archives.length(_model(storage), TAR_GZ)
    monkeypatch.setattr("bentofs.store.archives.chunk_sizes.codec_name", lambda: "another")
    storage.bytes_read.clear()
    other = Archives(storage, index, Compression.AUTO)
    assert other.length(_model(storage), TAR_GZ._replace(codec=lambda: "another")) == length
    assert storage.count("words") >= len(_WORDS)
    other.close()


def test_a_known_length_needs_no_layout(
    storage: CountingStorage, index: Index, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [archives.length(_model(storage), kind) for kind in (TAR_GZ, ZIP)]
    other = Archives(storage, index, Compression.AUTO, formats=(TAR_GZ, ZIP))
    monkeypatch.setattr(other, "_compressed", None)
    assert all(other.is_length_known(_model(storage), kind) for kind in (TAR_GZ, ZIP))
    assert [other.length(_model(storage), kind) for kind in (TAR_GZ, ZIP)] == lengths
    other.close()


@pytest.mark.parametrize("kind", [TAR_GZ, ZIP], ids=["tar.gz", "zip"])
def test_a_wrong_length_in_the_index_is_an_error_once_and_never_an_early_end(
    storage: CountingStorage, index: Index, kind: Format
) -> None:
    archives = Archives(storage, index, Compression.AUTO)
    right = archives.length(_model(storage), kind)
    index.keep_archive_length(archives.bytes_name(_model(storage), kind), right - 1)
    other = Archives(storage, index, Compression.AUTO)
    revision = other.revision
    assert other.length(_model(storage), kind) == right - 1
    with pytest.raises(SourceChangedError):
        other.open(_model(storage), kind)
    assert other.revision > revision
    assert other.length(_model(storage), kind) == other.open(_model(storage), kind).length == right
    for each in (archives, other):
        each.close()


@pytest.mark.parametrize("kind", [TAR_GZ, ZIP, TAR_BZ2], ids=["tar.gz", "zip", "tar.bz2"])
def test_a_change_while_measuring_is_an_error_and_nothing_is_kept(
    storage: CountingStorage, archives: Archives, index: Index, store: Path, kind: object
) -> None:
    kind = next(known for known in (TAR_GZ, ZIP, TAR_BZ2) if known is kind)
    path = store / "mixed" / "v1" / "words"

    def change(source: str) -> None:
        if source.endswith("words") and storage.count("words") > 1 << 20:
            storage.before_read = lambda _: None
            look = path.stat()
            with path.open("r+b") as file:
                file.write(b"X")
            os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))

    storage.before_read = change
    model = _model(storage)
    with pytest.raises(SourceChangedError):
        archives.length(model, kind)
    identity = next(entry.identity for entry in model.entries if entry.path == "words")
    assert identity is not None
    kept = index.chunk_sizes(":".join(map(str, identity)), deflate.codec_name())
    assert kept is None or not kept.sizes
    assert index.checksum(identity) is None
    assert archives.length(_model(storage), kind) > 0


def test_a_file_just_written_is_not_kept_beyond_this_archive(
    store: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(store, "mixed:v1", _FILES)
    now = (folder / "words").stat().st_ctime_ns + 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    storage = LocalStorage(str(store))
    archives = Archives(storage, index, Compression.AUTO)
    assert len(gzip.decompress(whole(archives.open(_model(storage), TAR_GZ)))) > len(_WORDS)
    assert index._database.run(lambda connection: connection.execute("SELECT * FROM chunk_sizes").fetchall()) == []
    archives.close()


def test_it_can_be_interrupted_and_goes_on_where_it_was(store: Path, index: Index) -> None:
    make_model(store, "mixed:v1", {f"{number:03}": _WORDS[number:][:400_000] for number in range(200)})
    wait_until_settled(store)
    storage = CountingStorage(store)
    archives = Archives(storage, index, Compression.AUTO)
    reached = threading.Event()

    def look(_source: str) -> None:
        if storage.count() > 50_000_000:
            reached.set()

    storage.before_read = look
    errors: list[BaseException] = []

    def measure() -> None:
        try:
            archives.length(_model(storage), ZIP)
        except CancelledError as error:
            errors.append(error)

    thread = threading.Thread(target=measure)
    thread.start()
    assert reached.wait(30)
    archives.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == 1
    storage.bytes_read.clear()
    other = Archives(storage, index, Compression.AUTO)
    assert other.length(_model(storage), ZIP) > 0
    assert storage.count() < 60_000_000, "what was measured by then is known"
    other.close()


def test_many_threads_measure_a_model_once(storage: CountingStorage, archives: Archives) -> None:
    model = _model(storage)
    found: list[int] = []

    def look(kind_name: str) -> None:
        found.append(archives.length(model, FORMATS[kind_name]))

    threads = [threading.Thread(target=look, args=(name,)) for name in ("zip", "tar.gz") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 8
    assert len(set(found)) == 2
    assert storage.count("words") <= len(_WORDS) * 1.1


def test_measuring_ahead_tells_its_progress_and_leaves_nothing_to_wait_for(
    storage: CountingStorage, archives: Archives, index: Index
) -> None:
    model = _model(storage)
    told: list[int] = []
    archives.measure(model, [TAR_GZ, ZIP], told.append)
    assert sum(told) == model.size
    assert all(count >= 0 for count in told)
    storage.bytes_read.clear()
    other = Archives(storage, index, Compression.AUTO)
    archive = other.open(_model(storage), ZIP)
    directory = memoryview(bytearray(300))
    archive.read_into([directory], archive.length - 300)  # the place of the checksums
    assert storage.count() == 0
    other.close()


def test_very_many_tiny_files_are_no_larger_than_gzip_makes_them(
    store: Path, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They and all headers are compressed, whatever else a model holds. Larger files are stored beyond the limit."""
    monkeypatch.setattr("bentofs.store.archives.compression.MAX_MODEL", 1 << 20)
    files = {f"{number % 9}/{number}.json": b'{"n": %d}' % number + _WORDS[number:][:90] for number in range(2000)}
    folder = make_model(store, "mixed:v1", {**files, **{f"noise/{n}": _NOISE[n:][:60_000] for n in range(9)}})
    archives = Archives(LocalStorage(str(store)), index, Compression.AUTO)
    archive = whole(archives.open(_model(LocalStorage(str(store))), TAR_GZ))
    peer = subprocess.run(f"tar -c -C '{folder}' . | gzip -1 | wc -c", shell=True, capture_output=True, check=True)
    assert len(archive) <= int(peer.stdout) * 1.2
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xz", "-C", tmp_path / "unpacked"], input=archive, check=True)
    subprocess.run(["diff", "-r", folder, tmp_path / "unpacked"], check=True)
    archives.close()


@pytest.mark.parametrize(
    ("kind", "peer"),
    [(TAR_GZ, "tar -c -C '{folder}' . | pigz -1 | wc -c"), (ZIP, "cd '{folder}' && zip -q -1 -r - . | wc -c")],
    ids=["tar.gz", "zip"],
)
@pytest.mark.parametrize("what", ["words", "table"])
def test_many_small_files_get_the_level_that_their_sample_needs(
    store: Path, index: Index, what: str, kind: Format, peer: str
) -> None:
    """The level is kept with the sizes: another process lays out the same bytes."""
    table = b"".join(b'{"id": %d, "score": %.6f}\n' % (n * 7919 % 10**6, _DICE.gauss(0, 1)) for n in range(100_000))
    content = {"words": _WORDS, "table": table}[what]
    files = {f"{number:04}.json": content[number * 4000 :][:20_000] for number in range(500)}
    folder = make_model(store, "mixed:v1", files)
    wait_until_settled(store)
    storage = LocalStorage(str(store))
    found = []
    for _ in range(2):
        archives = Archives(storage, index, Compression.AUTO)
        found.append(whole(archives.open(_model(storage), kind)))
        archives.close()
    assert found[0] == found[1]
    query = f"SELECT effort FROM chunk_sizes WHERE content LIKE '%/{kind.part}/%'"
    rows = index._database.run(lambda connection: connection.execute(query).fetchall())
    assert rows == [(1 if what == "table" else deflate.MOST_EFFORT,)]
    made = subprocess.run(peer.format(folder=folder), shell=True, capture_output=True, check=True)
    assert what == "words" or len(found[0]) <= int(made.stdout), "ISA-L does worse on five words, at any level"
