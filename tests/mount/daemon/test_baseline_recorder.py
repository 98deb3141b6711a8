"""A mount records its measurements for `bentofs verify`."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.harness import ROOT, Mounted, home_of, make_model


def _verify(mount: Mounted) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bentofs.mount", "verify", "--store", str(mount.store)],
        cwd=ROOT,
        env={**os.environ, **home_of(mount.base)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _recorded(mount: Mounted) -> set[str]:
    with sqlite3.connect(Path(home_of(mount.base)["XDG_STATE_HOME"]) / "bentofs" / "digests.sqlite") as connection:
        return {row[0] for row in connection.execute("SELECT DISTINCT tag FROM file_digests")}


def test_a_model_whose_zip_was_read_is_the_baseline_for_verify(store: Path, mounted: Callable[..., Mounted]) -> None:
    folder = make_model(store, "m:v1", {"w.bin": os.urandom(3_000_000), "empty": b"", "sub/": b""})
    make_model(store, "unread:v1", {"w.bin": b"w"})
    os.utime(folder / "w.bin", (1, 1))
    mount = mounted(store)
    mount.archive("m:v1", ".zip").read_bytes()
    mount.wait_for_log("recorded the SHA-256s of m:v1", 20)
    assert _recorded(mount) == {"m:v1"}
    mount.stop()
    with (folder / "w.bin").open("r+b") as file:  # like a failing disk
        file.write(b"\0" * 8)
    done = _verify(mount)
    assert done.returncode == 5
    assert "m:v1: of 3 files" in done.stdout
    assert "1 differ from what was recorded" in done.stdout
    assert "differs: w.bin" in done.stdout
    assert "unread:v1: recorded for the next time" in done.stdout


def test_a_model_read_in_part_is_not_read_whole_behind_the_readers_back(
    store: Path, mounted: Callable[..., Mounted]
) -> None:
    make_model(store, "m:v1", {"a.bin": os.urandom(100_000), "b.bin": os.urandom(3_000_000)})
    make_model(store, "n:v1", {"w.bin": b"w"})
    mount = mounted(store)
    with mount.archive("m:v1", ".zip").open("rb", buffering=0) as file:
        file.read(100)
    mount.archive("n:v1", ".zip").read_bytes()
    mount.wait_for_log("recorded the SHA-256s of n:v1", 20)
    assert _recorded(mount) == {"n:v1"}
