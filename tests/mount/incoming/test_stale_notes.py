"""Notes whose file has gone: those of bentofs are removed a day later."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from bentofs.mount.incoming.stale_notes import remove_stale_notes
from tests.harness import Mounted, wait_until
from tests.incoming import cp

SENTENCE = "a.zip was not imported: the archive is cut short\n"


def note(path: Path, text: str = SENTENCE, hours: float = 25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    when = time.time() - hours * 3600
    os.utime(path, (when, when))
    return path


def test_which_are_removed(tmp_path: Path) -> None:
    (tmp_path / "here.zip").write_bytes(b"refused")
    (tmp_path / "folder").mkdir()
    stay = [
        note(tmp_path / "here.zip.error"),
        note(tmp_path / "folder.error"),
        note(tmp_path / "young.zip.error", hours=23),
        note(tmp_path / "a-users-own.error", "2 errors"),
        note(tmp_path / "no-note.txt"),
    ]
    go = [note(tmp_path / "gone.zip.error"), note(tmp_path / "below/.dot/0000000001.error")]
    removed = remove_stale_notes(str(tmp_path))
    assert sorted(removed) == ["below/.dot/0000000001.error", "gone.zip.error"]
    assert all(path.exists() for path in stay)
    assert not any(path.exists() for path in go)


def test_a_mount_removes_them(mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    mount = mounted(tmp_path / "store")
    mount.allow_log("was not imported")
    (tmp_path / "junk").write_bytes(b"junk" * 1000)
    for name in ("lost.zip", "kept.zip"):
        assert cp(tmp_path / "junk", mount.path / "incoming" / name).returncode == 1
    lost, kept = (mount.path / f"incoming/{name}.zip.error" for name in ("lost", "kept"))
    spool = next((tmp_path / ".store.bentofs/sessions").glob("*/spool"))
    (spool / "lost.zip").unlink()  # like a file that a server renamed
    for path in (lost, kept):
        os.utime(path, (0, 0))
    mount.stop()
    mount.start()
    wait_until(lambda: not lost.exists(), 10, "the note without a file goes")
    assert kept.exists()
