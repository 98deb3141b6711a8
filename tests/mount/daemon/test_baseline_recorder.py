"""A mount records its measurements for `bentofs verify`."""

import functools
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.harness import ROOT, Mounted, home_of, make_model, run, wait_until
from tests.incoming import made_tar


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


def test_an_imported_model_is_recorded_and_so_is_one_that_replaces_it(
    store: Path, mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    """Both have the same creation time, so that a record of the first would be taken for one of the second."""
    mount = mounted(store, options=["--overwrite"])
    for size in (3_000_000, 2_000_000):
        content = os.urandom(size)
        run("cp", made_tar(tmp_path / str(size), "m:v1", {"w": content}), mount.path / "incoming/m.tar")
        wanted = {hashlib.sha256(content).hexdigest()}
        wait_until(functools.partial(_has_sums, mount, wanted), 30, "the model is recorded")
        assert len(_sums(mount)) == 2
    mount.stop()
    assert _verify(mount).returncode == 0
    with (store / "m/v1/w").open("r+b") as file:
        file.write(b"\0" * 8)
    assert _verify(mount).returncode == 5


def _has_sums(mount: Mounted, wanted: set[str]) -> bool:
    return wanted <= _sums(mount)


def _sums(mount: Mounted) -> set[str]:
    with sqlite3.connect(Path(home_of(mount.base)["XDG_STATE_HOME"]) / "bentofs" / "digests.sqlite") as connection:
        return {row[0] for row in connection.execute("SELECT sha256 FROM file_digests")}
