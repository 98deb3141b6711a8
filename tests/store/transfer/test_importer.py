"""Importing: facts found on the way are kept, and a mount that ends publishes nothing more."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.store.archives.crc32_cache import Measurements
from bentofs.store.archives.index import Index
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import BadModelError, CancelledError, ModelExistsError
from bentofs.store.formats.read.growing_file import WholeFile
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.verify import VerifyOutcome, verify_model
from bentofs.store.model.tag import Tag
from bentofs.store.publishing.base import Outcome
from bentofs.store.staging.area import StagingArea
from bentofs.store.staging.session import Session
from bentofs.store.storage.local import LocalStorage
from bentofs.store.transfer.importer import Importer, StagedImport
from tests.harness import make_model
from tests.waiting import wait_until_settled

TAG = Tag("iris", "v1")


@pytest.fixture
def session(store: Path) -> Iterator[Session]:
    session = StagingArea(str(store)).open_session()
    yield session
    session.close()


@pytest.fixture
def digests(tmp_path: Path) -> Iterator[Baseline]:
    digests = Baseline(tmp_path / "state" / "digests.sqlite")
    yield digests
    digests.close()


@pytest.fixture
def importer(store: Path, session: Session, index: Index, digests: Baseline) -> Importer:
    return Importer(ModelStore(LocalStorage(str(store))), session, Measurements(index), digests)


def packed(folder: Path) -> Path:
    archive = folder.parent / "packed.tar"
    subprocess.run(["tar", "-cf", archive, "-C", folder, "."], check=True)
    return archive


def staged(importer: Importer, archive: Path) -> StagedImport:
    with archive.open("rb") as file:
        return importer.stage(WholeFile(file.fileno()))


def test_an_imported_model_is_measured_and_can_be_verified(
    tmp_path: Path, store: Path, importer: Importer, index: Index, digests: Baseline
) -> None:
    folder = make_model(tmp_path / "elsewhere", str(TAG), {"a": b"a" * 100_000, "sub/b": b"b"})
    ready = staged(importer, packed(folder))
    wait_until_settled(Path(ready.staged.path))
    assert importer.publish(ready) is Outcome.IMPORTED
    fresh = ModelStore(LocalStorage(str(store)))
    assert verify_model(fresh, digests, TAG).outcome is VerifyOutcome.SAME
    measured = {entry.path: index.checksum(entry.identity) for entry in fresh.model(TAG).entries if entry.identity}
    assert measured["a"] is not None
    (store / TAG.path / "a").write_bytes(b"c" * 100_000)
    assert verify_model(ModelStore(LocalStorage(str(store))), digests, TAG).outcome is VerifyOutcome.DIFFERS


def test_a_taken_tag_is_refused_before_the_end(tmp_path: Path, store: Path, importer: Importer) -> None:
    make_model(store, str(TAG), {"a": b"here"})
    other = make_model(tmp_path / "elsewhere", str(TAG), {"a": b"there"}, creation_time="2026-03-03T00:00:00+00:00")
    archive = packed(other)
    subprocess.run(["truncate", "-s", "4096", archive], check=True)  # the model.yaml comes first
    with pytest.raises(ModelExistsError, match="another model"):
        staged(importer, archive)


def test_what_bentoml_cannot_read_is_refused_unless_it_is_there(
    tmp_path: Path, store: Path, importer: Importer
) -> None:
    folder = make_model(tmp_path / "elsewhere", str(TAG), {"a": b"a"}, creation_time="2026-03-03T00:00:00")
    with pytest.raises(BadModelError, match="names no time zone"):
        staged(importer, packed(folder))
    with pytest.raises(BadModelError, match="names no time zone"):
        importer.stage_folder(str(folder))
    make_model(store, str(TAG), {"a": b"a"}, creation_time="2026-03-03T00:00:00")
    assert importer.publish(staged(importer, packed(folder))) is Outcome.UNCHANGED


def test_nothing_is_published_once_it_is_closed(
    tmp_path: Path, store: Path, importer: Importer, session: Session
) -> None:
    folder = make_model(tmp_path / "elsewhere", str(TAG), {"a": b"a"})
    ready = staged(importer, packed(folder))
    assert importer.close(1.0)
    with pytest.raises(CancelledError):
        importer.publish(ready)
    assert not (store / TAG.path).exists()
    assert os.path.exists(ready.staged.path)
    ready.discard()
    assert not os.listdir(session.staged)
