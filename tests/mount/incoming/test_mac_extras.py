"""Files that macOS adds: a model from a Mac equals the one from Linux, and the left-out files are reported once."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ROOT, Mounted, home_of, run
from tests.incoming import imports, imports_command, made, same, tar_of

_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        "


def _from_mac(model: Path, copy: Path) -> Path:
    """Copy a model, with the files that macOS adds."""
    run("cp", "-r", model, copy)
    (copy / "._w").write_bytes(_DOUBLE)
    (copy / "d" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (copy / "__MACOSX").mkdir()
    (copy / "__MACOSX" / "._w").write_bytes(_DOUBLE)
    return copy


def _zipped(folder: Path, target: Path) -> Path:
    run("zip", "-qr", target, ".", cwd=folder)
    return target


@pytest.mark.parametrize("way", ["tar", "zip", "folder"])
def test_a_model_from_a_mac(store: Path, mounted: Callable[..., Mounted], tmp_path: Path, way: str) -> None:
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"w": os.urandom(1000), "d/e": b"e"})
    folder = _from_mac(model, tmp_path / "mac")
    if way == "folder":
        run("cp", "-r", folder, mount.path / "incoming/folder")
        run("sync", mount.path / "incoming/folder")
    else:
        packed = tar_of(folder, tmp_path / "mac.tar") if way == "tar" else _zipped(folder, tmp_path / "mac.zip")
        run("cp", packed, mount.path / "incoming")
    same(model, store / "m/v1")
    run("cp", tar_of(model, tmp_path / "linux.tar"), mount.path / "incoming")
    first, second = imports(mount)
    assert (first["state"], second["state"]) == ("imported", "unchanged")
    note = "left out 3 files that macOS adds: "
    assert first["note"].startswith(note)
    assert second["note"] is None
    assert mount.log().count(note) == 1
    assert note in run(*imports_command(mount), cwd=ROOT).stdout


def test_a_model_of_which_bentoml_took_in_all(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """The model counts as the same, and stays unchanged."""
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"w": os.urandom(1000), "d/e": b"e"})
    (store / "m").mkdir()
    folder = _from_mac(model, store / "m/v1")
    os.utime(folder, (1, 1))  # the mtime with which BentoML marks a finished save
    packed = tar_of(folder, tmp_path / "mac.tar")
    run("cp", packed, mount.path / "incoming/mac.tar")
    run("cp", tar_of(model, tmp_path / "linux.tar"), mount.path / "incoming/linux.tar")
    assert [receipt["state"] for receipt in imports(mount)] == ["unchanged", "unchanged"]
    assert (folder / "._w").exists()
    mount.wait_for_log("recorded the SHA-256s of m:v1", 30)
    verify = [sys.executable, "-m", "bentofs.mount", "verify", "--store", str(store)]
    (folder / "d/._e").write_bytes(_DOUBLE)
    assert "the same as recorded" in run(*verify, cwd=ROOT, env={**os.environ, **home_of(mount.base)}).stdout
    (folder / "d/e").write_bytes(b"other")
    done = subprocess.run(
        verify, cwd=ROOT, env={**os.environ, **home_of(mount.base)}, capture_output=True, text=True, check=False
    )
    assert "1 differ from what was recorded" in done.stdout
    (folder / "d/e").write_bytes(b"e")
    mount.expect_log("linux2.tar was not imported: m:v1 is in the store with other content")
    (model / "__MACOSX").mkdir()
    (model / "__MACOSX" / "mine").write_bytes(b"x")
    archive = tar_of(model, tmp_path / "linux2.tar")
    assert subprocess.run(["cp", archive, mount.path / "incoming"], capture_output=True, check=False).returncode == 1
