"""Namespace: races too rare to test in a real mount."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from bentofs.mount.incoming.checksums import Checksums
from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.empty_uploads import EmptyUploads
from bentofs.mount.incoming.error_notes import ErrorNotes
from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.folder_delivery import FolderDelivery
from bentofs.mount.incoming.folders import Folders
from bentofs.mount.incoming.handles import UploadHandles
from bentofs.mount.incoming.imported import ImportedNames
from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.incoming.ownership import Ownership
from bentofs.mount.incoming.read_back import ReadBack
from bentofs.mount.incoming.receipts import Receipts
from bentofs.mount.incoming.reports import Reports
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.spool_names import SpoolNames, UploadFactory
from bentofs.mount.incoming.staging_run import Slots, Stager
from bentofs.mount.incoming.upload import Upload
from bentofs.store.errors import DamagedArchiveError, InUseError
from bentofs.store.formats.read.growing_file import ArrivingFile
from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.importer import Importer
from bentofs.store.util.memory_budget import MemoryBudget


def test_a_file_that_is_closed_just_when_it_is_renamed_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close imports the file under its new name. Otherwise neither the close nor the rename would import it."""
    renamed = threading.Event()

    def staged(arriving: ArrivingFile, _on_model: Callable[[], None]) -> Mock:
        arriving.length()
        assert renamed.wait(10)
        return Mock()

    delivered = []

    def deliver(upload: Upload, path: str, _check: Callable[[], None]) -> int:
        upload.take()
        upload.mark_imported()
        delivered.append(path)
        return 0

    namespace, log = made(tmp_path, staged, deliver)
    files = namespace.files
    number = files.create("m.tar.part", os.O_WRONLY, 0o644, os.geteuid())
    files.write(number, memoryview(b"x"), 0)
    closer = threading.Thread(target=files.flush, args=(number,), daemon=True)
    move = SpoolNames.move

    def move_late(names: SpoolNames, upload: Upload, old: str, new: str) -> None:
        closer.start()
        closer.join(0.5)
        move(names, upload, old, new)

    monkeypatch.setattr(SpoolNames, "move", move_late)
    namespace.rename("m.tar.part", "m.tar")
    renamed.set()
    closer.join(10)
    assert delivered == ["m.tar"]
    files.release(number)
    log.close()


@pytest.mark.expect_log("m.tar was not imported: two programs wrote to it at once")
def test_a_write_between_a_close_and_its_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of another program may be in the model then, so neither is told that it was imported."""

    def staged(arriving: ArrivingFile, _on_model: Callable[[], None]) -> Mock:
        arriving.length()
        return Mock()

    delivered = []

    def deliver(upload: Upload, path: str, check: Callable[[], None]) -> int:
        upload.take()
        check()
        upload.mark_imported()
        delivered.append(path)
        return 0

    namespace, log = made(tmp_path, staged, deliver)
    files = namespace.files
    one = files.create("m.tar", os.O_WRONLY, 0o644, os.geteuid())
    other = files.open("m.tar", os.O_WRONLY, os.geteuid())
    files.write(one, memoryview(b"one"), 0)
    deciding, late = Upload.deciding, [b"two"]

    def deciding_late(upload: Upload) -> AbstractContextManager[None]:
        while late:
            files.write(other, memoryview(late.pop()), 0)
        return deciding(upload)

    monkeypatch.setattr(Upload, "deciding", deciding_late)
    for number in (one, other):
        with pytest.raises(InUseError):
            files.flush(number)
        files.release(number)
    assert delivered == []
    log.close()


@pytest.mark.expect_log("m.tar was not imported: no archive")
def test_a_file_that_is_closed_just_when_it_is_looked_at(tmp_path: Path) -> None:
    """The look needs bytes of the file, whose descriptor another thread closes at that moment."""

    def staged(arriving: ArrivingFile, _on_model: Callable[[], None]) -> Mock:
        arriving.length()  # wait for the close
        raise DamagedArchiveError("no archive")

    namespace, log = made(tmp_path, staged, lambda _upload, _path, _check: 0)
    files = namespace.files
    number = files.create("m.tar", os.O_WRONLY, 0o644, os.geteuid())
    files.write(number, memoryview(os.urandom(5000)), 0)
    with pytest.raises(DamagedArchiveError):
        files.flush(number)
    files.release(number)
    ended = threading.Event()
    numbers = [-1]

    def open_and_close() -> None:
        while not ended.is_set():
            number = numbers[0] = files.open("m.tar", os.O_RDONLY, os.geteuid())
            files.release(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads meet at any step
    openers = [threading.Thread(target=open_and_close) for _ in range(2)]
    for opener in openers:
        opener.start()
    try:
        for _ in range(5000):
            assert namespace.attributes("m.tar").size == 5000 - 512
            with suppress(KeyError):  # closed already
                assert files.attributes(numbers[0]).size == 5000 - 512
    finally:
        ended.set()
        for opener in openers:
            opener.join(10)
        sys.setswitchinterval(interval)
    log.close()


def made(
    tmp_path: Path,
    staged: Callable[[ArrivingFile, Callable[[], None]], Mock],
    deliver: Callable[[Upload, str, Callable[[], None]], int],
) -> tuple[Namespace, ImportLog]:
    """Return an empty `incoming/`, and its record. `staged` and `deliver` stand in for what makes models."""
    for folder in ("spool", "ranges"):
        (tmp_path / folder).mkdir()
    log = ImportLog(tmp_path / "receipts.sqlite")
    owners, receipts = Ownership(), Receipts(log, "session")
    stager = Stager(staged, Slots(MemoryBudget()))
    spool = Spool(str(tmp_path / "spool"), UploadFactory(str(tmp_path / "ranges"), owners, receipts, stager))
    reports, read_back = Reports(ErrorNotes(spool.root, owners), receipts), ReadBack(spool.root)
    delivery = Mock(spec=Delivery)
    delivery.deliver.side_effect = deliver
    finalizer = Finalizer(spool, delivery, reports, Mock(spec=Checksums), read_back, lambda _ready: None)
    imported = ImportedNames(Mock(spec=Importer), log, read_back)
    files = UploadHandles(spool, finalizer, EmptyUploads(spool, finalizer), imported, reports)
    folders = Folders(spool, Mock(spec=FolderDelivery), reports)
    return Namespace(spool, files, folders, finalizer, imported, reports, os.geteuid, lambda: None), log
