"""Shared tools of the tests of incoming/: copies that may fail, the record of imports, and looks behind the mount."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bentofs.store.transfer.import_log import ImportLog
from bentofs.store.transfer.receipt import Receipt
from tests.harness import ROOT, Mounted, make_model, run


def cp(*arguments: str | Path, seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Copy with cp, which may fail. Its exit code and its output are the outcome that a user gets."""
    return subprocess.run(
        ["cp", *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=seconds,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def tar_of(model: Path, archive: Path, mode: str = "w", **options: int) -> Path:
    """Make a tar of a model's folder by Python, without a top folder. `options`: those of tarfile."""
    with tarfile.open(archive, mode, **options) as tar:  # type: ignore[call-overload]
        for entry in sorted(model.iterdir()):
            tar.add(entry, entry.name)
    return archive


def made(base: Path, tag: str, files: Mapping[str | bytes, bytes | int] | None = None, **options: Any) -> Path:
    """Make a model in a store of its own below `base`. Return its folder."""
    return make_model(base / "made", tag, files if files is not None else {"w": b"w" * 1000}, **options)


def made_tar(base: Path, tag: str, files: Mapping[str | bytes, bytes | int] | None = None, **options: Any) -> Path:
    """Make the same as a tar that is named after it."""
    return tar_of(made(base, tag, files, **options), base / f"{tag.replace(':', '-')}.tar")


def send(model: Path, form: str, mount: Mounted, scratch: Path) -> None:
    """Copy a model in as `m`: a "folder" that is then synced, or a "tar" or "zip" that is made in `scratch`."""
    if form == "folder":
        run("cp", "-r", model, mount.path / "incoming/m")
        run("sync", mount.path / "incoming/m")
        return
    archive = scratch / f"m.{form}"
    if form == "zip":
        run("zip", "-qr", archive, ".", cwd=model)
    else:
        tar_of(model, archive)
    run("cp", archive, mount.path / "incoming")


def same(one: Path, other: Path) -> None:
    """Check that names, empty folders and every byte agree."""
    assert run("diff", "-r", one, other).stdout == ""


def imports(mount: Mounted, *options: str) -> list[dict[str, Any]]:
    """Return the output of `bentofs imports --json` for the mount's store, newest last."""
    told = run(*imports_command(mount), "--json", *options, cwd=ROOT).stdout
    return [json.loads(line) for line in told.splitlines()]


def record(mount: Mounted) -> list[Receipt]:
    """Return the record of imports itself, newest first."""
    receipts = ImportLog(area_of(mount.store) / "receipts.sqlite")
    try:
        return receipts.recent()
    finally:
        receipts.close()


def imports_command(mount: Mounted) -> list[str | Path]:
    return [sys.executable, "-m", "bentofs.mount", "imports", "--store", mount.store]


def area_of(store: Path) -> Path:
    """Return the folder where models are staged, unless --staging names another."""
    return store.parent / f".{store.name}.bentofs"


def staged(area: Path) -> list[Path]:
    """Return the paths in staging: there may be none, unless an import is running."""
    places = ("staged/*", "intents/*", "importing/*/*")
    return sorted(path for place in places for path in area.glob(f"sessions/*/{place}"))


def spooled(area: Path) -> list[Path]:
    """Return the files in all spools."""
    return sorted(path for path in area.glob("sessions/*/spool/**/*") if path.is_file())


def peak_memory(pid: int) -> int:
    """Return the peak physical memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
