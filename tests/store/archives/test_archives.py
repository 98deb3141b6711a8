"""Archives of a real store: sizes, sharing, SHA-256s, and old bytes or an error when the model changes."""

import hashlib
import os
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.chunk_sizes import Sizes
from bentofs.store.archives.compression import Compression, is_compressed
from bentofs.store.archives.digest import sha256_of
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import SourceChangedError, StoreError
from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write.registry import BENTOMODEL, FORMATS, TAR, TAR_GZ, ZIP, Format
from bentofs.store.model.model import Model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from bentofs.store.util.memory_budget import MemoryBudget
from tests.harness import make_model
from tests.store.at_once import in_threads
from tests.store.content import PieceFile, whole

_TAG = Tag("iris", "v1")
_WEIGHTS = random.Random(1).randbytes(300_000)
_UNDECODABLE = b"not utf-8 \xff\xfe \xe9"
_FILES: dict[str | bytes, bytes | int] = {
    "weights/a": _WEIGHTS,
    "weights/b": _WEIGHTS[::-1],
    _UNDECODABLE: b"odd",
    "nothing": b"",
    "nested/empty/": b"",
    "run": b"#!/bin/sh\n",
}
_ALL = [
    (kind, compression)
    for compression in Compression
    for kind in FORMATS.values()
    if (is_compressed(kind, compression) if compression is not Compression.NEVER else kind.lay_out)
]
each_archive = pytest.mark.parametrize(
    ("kind", "compression"), _ALL, ids=[f"{kind.name} {compression.value}" for kind, compression in _ALL]
)


@pytest.fixture
def folder(store: Path) -> Path:
    return make_model(store, "iris:v1", _FILES, executable=["run"])


@pytest.fixture
def compression() -> Compression:
    """The default, for tests that do not set their own."""
    return Compression.NEVER


@pytest.fixture
def archives(store: Path, index: Index, compression: Compression) -> Iterator[Archives]:
    archives = Archives(LocalStorage(str(store)), index, compression)
    yield archives
    archives.close()


def _model(store: Path) -> Model:
    return ModelStore(LocalStorage(str(store))).model(_TAG)


@pytest.mark.usefixtures("folder")
def test_to_ask_for_a_length_is_no_read(store: Path, index: Index) -> None:
    """Asking for a length is no read, even if it must be measured. A model that is only listed is not read again for
    its SHA-256."""
    opened: list[Model] = []
    archives = Archives(LocalStorage(str(store)), index, Compression.AUTO, opened.append)
    model = _model(store)
    for kind in (TAR, TAR_GZ, ZIP):
        archives.length(model, kind)
    archives.measure(model, [TAR_GZ, ZIP], lambda _count: None)
    assert not opened
    archives.open(model, TAR_GZ)
    assert opened == [model]
    archives.close()


@pytest.mark.parametrize("kind", [kind for kind in FORMATS.values() if kind.lay_out], ids=lambda kind: kind.name)
def test_the_length_is_known_without_a_read(store: Path, folder: Path, archives: Archives, kind: Format) -> None:
    model = _model(store)
    shutil.rmtree(folder)  # nothing is left to be read
    length = archives.length(model, kind)
    assert length == archives.open(model, kind).length
    assert archives.length(model, kind) == length


@pytest.mark.parametrize("compression", [Compression.AUTO, Compression.ALWAYS], ids=lambda kind: kind.value)
@pytest.mark.parametrize("kind", [TAR_GZ, ZIP], ids=lambda kind: kind.name)
def test_what_was_measured_is_known_to_the_next_process_without_a_read(
    store: Path, folder: Path, index: Index, kind: Format, compression: Compression
) -> None:
    """A listing can tell a measured size. It does not measure a size that was never measured."""
    model = _model(store)
    one, another = (
        Archives(
            LocalStorage(str(store)),
            index,
            compression,
            formats=[TAR_GZ, ZIP],
            sizes=Sizes(index, is_settled=lambda _ctime, _started: True),
        )
        for _ in range(2)
    )
    assert not one.is_length_known(model, kind)
    length = one.length(model, kind)
    assert one.is_length_known(model, kind)
    shutil.rmtree(folder)  # nothing is left to be read
    assert another.is_length_known(model, kind)
    assert another.length(model, kind) == length
    one.close()
    another.close()


@each_archive
def test_two_processes_give_the_same_bytes(
    store: Path, folder: Path, tmp_path: Path, kind: Format, compression: Compression
) -> None:
    contents = []
    for number in range(2):
        archives = Archives(LocalStorage(str(store)), Index(tmp_path / f"{number}" / "index.sqlite"), compression)
        contents.append(whole(archives.open(_model(store), kind)))
    assert contents[0] == contents[1]
    assert folder.exists()


def test_python_extracts_the_model(store: Path, folder: Path, archives: Archives) -> None:
    model = _model(store)
    with tarfile.open(fileobj=PieceFile(archives.open(model, TAR)), errors="surrogateescape") as tar:
        for info in tar:
            path = folder / info.name
            assert info.isdir() == path.is_dir()
            file = tar.extractfile(info)
            if file:
                assert file.read() == path.read_bytes()
                assert bool(info.mode & 0o100) == os.access(path, os.X_OK)
        assert [os.fsencode(name) for name in tar.getnames()] == [os.fsencode(entry.path) for entry in model.entries]
    with zipfile.ZipFile(PieceFile(archives.open(model, ZIP))) as zipped:
        assert zipped.testzip() is None
        assert zipped.read("weights/b") == _WEIGHTS[::-1]


def test_readers_of_one_generation_share_what_is_laid_out(store: Path, folder: Path, archives: Archives) -> None:
    catalogue = ModelStore(LocalStorage(str(store)))
    model = catalogue.model(_TAG)
    assert archives.open(model, TAR) is archives.open(catalogue.model(_TAG), TAR)
    assert archives.open(model, TAR) is not archives.open(model, ZIP)
    (folder / "weights" / "a").write_bytes(_WEIGHTS)
    assert archives.open(catalogue.model(_TAG, max_age=0), TAR) is not archives.open(model, TAR)


@pytest.mark.parametrize("compression", Compression)
def test_many_readers_at_random_places(
    store: Path, folder: Path, index: Index, archives: Archives, compression: Compression
) -> None:
    model = _model(store)
    assert folder.exists()
    other = Archives(LocalStorage(str(store)), index, compression)
    expected = {name: whole(other.open(model, kind)) for name, kind in FORMATS.items()}

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            name, kind = chance.choice(list(FORMATS.items()))
            offset = chance.randrange(len(expected[name]))
            size = min(chance.randrange(1, 131_072), len(expected[name]) - offset)
            found = read_bytes(archives.open(model, kind), offset, size)
            assert found == expected[name][offset : offset + size], (name, offset, size)

    in_threads(read, range(16))


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _replaced_by(size: int) -> Callable[[Path], None]:
    def replace(folder: Path) -> None:
        times = {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}
        shutil.rmtree(folder)
        make_model(folder.parent.parent, "iris:v1", {**_FILES, "weights/a": bytes(size)}, executable=["run"])
        for path, mtime in reversed(times.items()):
            os.utime(path, ns=(mtime, mtime))

    return replace


def _edited(folder: Path) -> None:
    for name in ("weights/a", "weights/b"):
        look = (folder / name).stat()
        with (folder / name).open("r+b") as file:
            file.write(b"EDITED")
        os.utime(folder / name, ns=(look.st_atime_ns, look.st_mtime_ns))


_CHANGES = {
    "removed": _remove,
    "equal size and mtime": _replaced_by(300_000),
    "smaller": _replaced_by(1000),
    "larger": _replaced_by(900_000),
    "edited in place": _edited,
}


@each_archive
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("change", _CHANGES.values(), ids=_CHANGES)
def test_old_bytes_or_an_error(
    store: Path,
    folder: Path,
    index: Index,
    archives: Archives,
    kind: Format,
    compression: Compression,
    begun: bool,
    change: Callable[[Path], None],
) -> None:
    other = Archives(LocalStorage(str(store)), index, compression)
    old = whole(other.open(_model(store), kind))
    held = archives.open(_model(store), kind)
    if begun:
        assert read_bytes(held, 0, 100_000) == old[:100_000]
    change(folder)
    errors = 0
    for offset in range(0, len(old), 10_000):
        size = min(10_000, len(old) - offset)
        try:
            assert read_bytes(held, offset, size) == old[offset : offset + size]
        except SourceChangedError:
            errors += 1
    if compression is Compression.NEVER:  # a compressed archive may be cached whole
        assert errors >= 50, "the contents of both weights are gone"
    if folder.exists():
        new = whole(archives.open(_model(store), kind))
        assert new != old


def test_one_file(store: Path, folder: Path, archives: Archives) -> None:
    entries = {os.fsencode(entry.path): entry for entry in _model(store).entries}
    held = archives.open_file(entries[b"weights/a"])
    assert whole(held) == _WEIGHTS
    assert whole(archives.open_file(entries[_UNDECODABLE])) == b"odd"
    assert whole(archives.open_file(entries[b"nothing"])) == b""
    with pytest.raises(ValueError, match="directory"):
        archives.open_file(entries[b"nested"])
    shutil.rmtree(folder)
    with pytest.raises(SourceChangedError):
        archives.open_file(entries[b"run"])


class TestSha256:
    @each_archive
    def test_of_the_bytes(self, store: Path, folder: Path, archives: Archives, kind: Format) -> None:
        model = _model(store)
        assert folder.exists()
        wanted = hashlib.sha256(whole(archives.open(model, kind))).hexdigest()
        assert archives.sha256(model, kind) == sha256_of(archives.open(model, kind)) == wanted

    def test_kept_for_the_next_process(self, store: Path, folder: Path, archives: Archives, index: Index) -> None:
        first = archives.sha256(_model(store), TAR)
        model = _model(store)
        shutil.rmtree(folder)  # nothing is left to be read
        assert Archives(LocalStorage(str(store)), index).sha256(model, TAR) == first

    def test_another_generation_has_another(self, store: Path, folder: Path, archives: Archives) -> None:
        first = archives.sha256(_model(store), BENTOMODEL)
        _edited(folder)
        second = archives.sha256(_model(store), BENTOMODEL)
        assert second != first
        assert second == sha256_of(archives.open(_model(store), BENTOMODEL))

    def test_of_a_model_that_changed_is_an_error_that_leaves_nothing(
        self, store: Path, folder: Path, archives: Archives, index: Index
    ) -> None:
        model = _model(store)
        _edited(folder)
        for _ in range(2):
            with pytest.raises(StoreError):
                archives.sha256(model, TAR)
        assert index.archive_digest(f"{model.fingerprint()}/tar/1") is None


@pytest.mark.usefixtures("folder")
def test_nothing_is_kept_of_a_model_that_is_gone(store: Path, index: Index) -> None:
    budget = MemoryBudget()
    archives = Archives(LocalStorage(str(store)), index, Compression.NEVER, budget=budget)
    archives.open(_model(store), TAR)
    archives.length(_model(store), ZIP)
    assert budget.usage().caches
    archives.forget(Tag("iris", "other"))
    assert budget.usage().caches
    archives.forget(_TAG)
    assert not budget.usage().caches
    archives.close()
