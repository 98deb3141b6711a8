"""Notes: a reader finds the whole text or no note."""

import os
import threading
from pathlib import Path

import pytest

from bentofs.mount.incoming.error_notes import ErrorNotes
from bentofs.mount.incoming.ownership import Ownership
from bentofs.store.errors import DamagedArchiveError


@pytest.mark.expect_log("m.tar was not imported: it is damaged")
def test_a_note_is_never_without_its_text(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    notes, error = ErrorNotes(str(spool), Ownership()), DamagedArchiveError("it is damaged")

    def refuse() -> None:
        for _ in range(300):
            notes.write("m.tar", error, os.geteuid(), "1")

    writer = threading.Thread(target=refuse)
    writer.start()
    seen = set()
    while writer.is_alive():
        for path in spool.iterdir():
            seen.add((path.name, path.read_text()))
    writer.join()
    assert seen == {("m.tar.error", "m.tar was not imported: it is damaged (request 1)\n")}
    notes.remove("m.tar")
    assert [*tmp_path.rglob("*")] == [spool]
