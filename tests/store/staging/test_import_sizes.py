"""Measurements during an import: the model's archives are ready at once, and nothing else is kept."""

import random
import subprocess
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from bentofs.store.archives.archives import Archives
from bentofs.store.archives.compression import Compression
from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.archives.index import Index, SizesRow
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.formats.read.growing_file import WholeFile
from bentofs.store.formats.write.deflate import codec_name
from bentofs.store.formats.write.registry import BENTOMODEL, DEFAULT_FORMATS, TAR_GZ, ZIP
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.model.model import ModelInfo
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Outcome
from bentofs.store.staging.area import StagingArea
from bentofs.store.staging.file import StagedFile
from bentofs.store.staging.import_sizes import StagedSizes, staged_sizes
from bentofs.store.staging.model import Staged
from bentofs.store.storage.base import Identity
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.local_file import LocalFile
from bentofs.store.transfer.importer import Importer
from tests.harness import make_model, wait_until
from tests.waiting import wait_until_settled

TAG = Tag("iris", "v1")
_DICE = random.Random(3)
_WORDS = b" ".join(_DICE.choices([b"alpha", b"beta", b"gamma", b"delta", b"42"], k=300_000))
_FILES: dict[str | bytes, bytes | int] = {
    "words": _WORDS,
    "weights": _DICE.randbytes(600_000),
    **{f"vocabulary/{number}": _WORDS[number * 99 :][:700] for number in range(60)},
}


@pytest.fixture
def archives(store: Path, index: Index) -> Iterator[Archives]:
    archives = Archives(LocalStorage(str(store)), index, Compression.AUTO)
    yield archives
    archives.close()


@pytest.fixture
def importer(store: Path, index: Index, archives: Archives, tmp_path: Path) -> Iterator[Importer]:
    session = StagingArea(str(store)).open_session()
    digests = Baseline(tmp_path / "state" / "digests.sqlite")
    yield Importer(
        ModelStore(LocalStorage(str(store))),
        session,
        Measurements(index),
        digests,
        measure=staged_sizes(index, archives, DEFAULT_FORMATS),
    )
    digests.close()
    session.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_model(tmp_path / "elsewhere", str(TAG), _FILES)


def _import(importer: Importer, archive: Path) -> Outcome:
    with archive.open("rb") as file:
        ready = importer.stage(WholeFile(file.fileno()))
    wait_until_settled(Path(ready.staged.path))
    return importer.publish(ready)


def _packed(folder: Path) -> Path:
    archive = folder.parent / "packed.tar"
    subprocess.run(["tar", "-cf", archive, "-C", folder.parent, folder.name], check=True)  # in a top directory
    return archive


def _rows(index: Index) -> list[tuple[str, str]]:
    query = "SELECT content, codec FROM chunk_sizes"
    return index._database.run(lambda connection: connection.execute(query).fetchall()) or []


class _UnreadStorage(LocalStorage):
    """The real storage, but no file may be read."""

    def open_file(self, source: str, identity: Identity) -> LocalFile:  # noqa: ARG002 - as the real one
        pytest.fail(f"{source} was read")

    def read_whole(self, files: Iterable[tuple[str, Identity, memoryview]]) -> None:
        pytest.fail(f"{len(list(files))} files were read")


@pytest.mark.parametrize("how", ["an archive", "a folder"])
def test_archives_of_an_imported_model_are_ready_at_once(
    store: Path, index: Index, importer: Importer, folder: Path, tmp_path: Path, how: str
) -> None:
    if how == "an archive":
        assert _import(importer, _packed(folder)) is Outcome.IMPORTED
    else:
        ready = importer.stage_folder(str(folder))
        wait_until_settled(Path(ready.staged.path))
        assert importer.publish(ready) is Outcome.IMPORTED
    lengths = []
    for storage, its_index in (
        (_UnreadStorage(str(store)), index),
        (LocalStorage(str(store)), Index(tmp_path / "other.sqlite")),
    ):
        archives = Archives(storage, its_index, Compression.AUTO)
        model = ModelStore(LocalStorage(str(store))).model(TAG)
        lengths.append([archives.length(model, kind) for kind in (TAR_GZ, ZIP)])
        archives.close()
    assert lengths[0] == lengths[1]
    assert lengths[0][0] < len(_WORDS)


def test_small_files_are_read_once_for_all_archives(
    importer: Importer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()

    class Counted(LocalStorage):
        def open_file(self, source: str, identity: Identity) -> LocalFile:
            read[source.rpartition("/")[2]] += 1
            return super().open_file(source, identity)

        def read_whole(self, files: Iterable[tuple[str, Identity, memoryview]]) -> None:
            for source, identity, view in files:
                read[source.rpartition("/")[2]] += 1
                super().read_whole([(source, identity, view)])

    monkeypatch.setattr("bentofs.store.staging.import_sizes.LocalStorage", Counted)
    assert _import(importer, _packed(folder)) is Outcome.IMPORTED
    assert [read[f"{number}"] for number in range(60)] == [1] * 60


def test_a_file_is_measured_while_others_are_still_to_come(
    tmp_path: Path, index: Index, archives: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    sizes = StagedSizes(index, archives.maker, [TAR_GZ], str(tmp_path))
    keep = sizes._kept.keep_chunk_sizes

    def counted(rows: Iterable[SizesRow]) -> None:
        keep(rows)
        kept.append("rows")

    monkeypatch.setattr(sizes._kept, "keep_chunk_sizes", counted)
    (tmp_path / "words").write_bytes(_WORDS)
    identity = Identity.of((tmp_path / "words").stat())
    sizes.file("words", StagedFile(len(_WORDS), "", 0, identity))
    wait_until(lambda: bool(kept), 20, "the file is measured")
    what = sizes._kept.chunk_sizes(":".join(map(str, identity)), codec_name())
    assert what is not None
    assert what.worth_it
    assert len(what.sizes) == -(-len(_WORDS) // (1 << 20))
    sizes.give_up()


def test_a_model_of_very_many_files_is_left_to_the_background(folder: Path, index: Index, archives: Archives) -> None:
    info = ModelInfo.learn((folder / "model.yaml").read_bytes())
    files = {"words": StagedFile(len(_WORDS), "", zlib.crc32(_WORDS), Identity.of((folder / "words").stat()))}
    for known, is_measured in (({}, False), (files, True)):  # none: more than are kept
        sizes = StagedSizes(index, archives.maker, [ZIP], str(folder))
        sizes.finish(Staged(str(folder), info, known))
        assert bool(sizes._kept.rows) is is_measured


@pytest.mark.parametrize("how", ["unchanged", "damaged"])
def test_of_what_does_not_become_a_model_nothing_is_kept(
    store: Path, index: Index, importer: Importer, folder: Path, how: str
) -> None:
    archive = _packed(folder)
    if how == "unchanged":
        make_model(store, str(TAG), _FILES)
        assert _import(importer, archive) is Outcome.UNCHANGED
    else:
        subprocess.run(["truncate", "-s", "-20000", archive], check=True)
        with pytest.raises(Exception, match="cut short"):
            _import(importer, archive)
    assert _rows(index) == []


def test_what_cannot_be_measured_is_imported(
    store: Path, index: Index, importer: Importer, archives: Archives, folder: Path
) -> None:
    archives.close()  # like the end of the mount
    assert _import(importer, _packed(folder)) is Outcome.IMPORTED
    assert ModelStore(LocalStorage(str(store))).model(TAG).file_count == len(_FILES) + 1
    assert _rows(index) == []


def test_what_takes_long_or_needs_no_measuring_does_not_hold_up_an_import(store: Path, index: Index) -> None:
    for compression, kinds in (
        (Compression.ALWAYS, DEFAULT_FORMATS),
        (Compression.NEVER, DEFAULT_FORMATS),
        (Compression.AUTO, [BENTOMODEL]),
    ):
        archives = Archives(LocalStorage(str(store)), index, compression)
        assert staged_sizes(index, archives, kinds) is None
        archives.close()
