"""Namespace: races too rare to test in a real mount."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from bentofs.mount.incoming.delivery import Delivery
from bentofs.mount.incoming.finalize import Finalizer
from bentofs.mount.incoming.namespace import Namespace
from bentofs.mount.incoming.ownership import Ownership
from bentofs.mount.incoming.spool import Spool
from bentofs.mount.incoming.upload import Upload
from bentofs.store.formats.read.growing_file import ArrivingFile


def test_a_file_that_is_closed_just_when_it_is_renamed_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close imports the file under its new name. Otherwise neither the close nor the rename would import it."""
    renamed = threading.Event()

    def staged(arriving: ArrivingFile, _on_model: Callable[[], None]) -> Mock:
        arriving.length()
        assert renamed.wait(10)
        return Mock()

    delivery = Mock(spec=Delivery, stage=staged, owners=Ownership())
    delivery.deliver.side_effect = lambda upload, _path, _ready: upload.mark_imported()
    for folder in ("spool", "ranges"):
        (tmp_path / folder).mkdir()
    spool = Spool(str(tmp_path / "spool"), str(tmp_path / "ranges"), delivery, os.geteuid)
    namespace = Namespace(spool, delivery, Finalizer(spool, delivery), lambda: None)
    number = namespace.files.create("m.tar.part", os.O_WRONLY, 0o644, os.geteuid())
    namespace.files.write(number, memoryview(b"x"), 0)
    closer = threading.Thread(target=namespace.files.flush, args=(number,), daemon=True)
    move = namespace._move

    def move_late(upload: Upload, old: str, new: str) -> None:
        closer.start()
        closer.join(0.5)
        move(upload, old, new)

    monkeypatch.setattr(namespace, "_move", move_late)
    namespace.rename("m.tar.part", "m.tar")
    renamed.set()
    closer.join(10)
    assert [call.args[1] for call in delivery.deliver.call_args_list] == ["m.tar"]
    namespace.files.release(number)
