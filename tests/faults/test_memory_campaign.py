"""A mount that imports, deletes, lists and reads for long does not use more and more of any resource.

A long campaign: BENTOFS_MODELS=1000 BENTOFS_SECONDS=1200 scripts/test tests/faults/test_memory_campaign.py
With both engines: BENTOFS_LONG=1
"""

import io
import lzma
import os
import random
import re
import subprocess
import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from bentofs.mount.incoming.read_back import MOST_FILES
from tests.engines import BOTH
from tests.harness import Mounted, home_of, make_model, remove_model, run, wait_until
from tests.incoming import area_of, cp

MODELS = int(os.environ.get("BENTOFS_MODELS", "40"))  # models imported; all but the last ones are deleted again
SECONDS = float(os.environ.get("BENTOFS_SECONDS", "2"))  # seconds of listing and reading the rest
_KEPT = 8  # models that are in the store at a time
_FILES = 400  # in each model
_MEMORY = 120_000_000  # bytes: the promised limit
_GROWTH = 12_000_000  # bytes, from the middle of the campaign to its end
_FORMATS = (".tar", ".bentomodel", ".tar.gz", ".zip")
_UPLOADS = 4  # at once, of archives that need as much memory as those of `xz -9`


class Footprint(NamedTuple):
    """The resources of a daemon."""

    memory: int  # bytes
    descriptors: int
    threads: int
    files: int  # the daemon's own: staged, spooled, and its records


def test_nothing_grows(store: Path, mounted: Callable[..., Mounted]) -> None:
    mount = mounted(store, limit=300 + 10 * SECONDS + 3 * MODELS, own_process=True)
    seen = []
    for number in range(MODELS):
        (mount.path / f"incoming/m-v{number}.tar").write_bytes(_archive(number))
        _read(mount, number, _FORMATS[number % len(_FORMATS)])
        if number >= _KEPT:
            remove_model(store, f"m:v{number - _KEPT}")
        if number + 1 in (MODELS // 2, MODELS):
            seen.append(_at_rest(mount))
    _did_not_grow(*seen)

    wait_until(lambda: _lists(mount), 20, "the deleted models are no longer listed", interval=0.5)
    end = time.monotonic() + SECONDS
    seen = []
    while len(seen) < 2 or time.monotonic() < end:
        run("ls", "-lR", mount.path / "models", mount.path / "by-format", seconds=120)
        for number in range(MODELS - _KEPT, MODELS):
            for suffix in _FORMATS:
                _read(mount, number, suffix)
        seen.append(_at_rest(mount) if not seen else _footprint(mount))
    _did_not_grow(seen[0], _at_rest(mount))
    assert max(each.memory for each in seen) < _MEMORY
    assert _most_memory(mount) < _MEMORY


@pytest.mark.parametrize("engine", BOTH if "BENTOFS_LONG" in os.environ else BOTH[:1])
def test_uploads_that_need_most_memory_in_a_mount_that_has_read_much(
    store: Path, mounted: Callable[..., Mounted], tmp_path: Path, engine: tuple[str, ...]
) -> None:
    """The kernel knows 18,000 names, and all caches are full, when the decoders come."""
    for number in range(6):
        chance = random.Random(number)
        words = [chance.randbytes(4).hex().encode() for _ in range(500)]
        texts = {f"text/{file:04}": b" ".join(chance.choices(words, k=300)) for file in range(1500)}
        make_model(store, f"m:v{number}", texts)
    mount = mounted(store, options=engine, limit=900, own_process=True)
    run("ls", "-lR", mount.path / "models", mount.path / "by-format", seconds=300)
    for number in range(6):
        for suffix in _FORMATS:
            _read(mount, number, suffix)
    archives = [_archive_for_a_large_window(tmp_path, number) for number in range(_UPLOADS)]
    with ThreadPoolExecutor(_UPLOADS) as pool:
        done = pool.map(lambda archive: cp(archive, mount.path / "incoming", seconds=300), archives)
        assert [copy.returncode for copy in done] == [0] * _UPLOADS
    assert [(store / f"u{number}/v0/noise").stat().st_size for number in range(_UPLOADS)] == [3 << 20] * _UPLOADS
    assert _most_memory(mount) < _MEMORY, f"{_most_memory(mount):,}"


def _archive_for_a_large_window(folder: Path, number: int) -> Path:
    """Make an archive that needs a window of 64 MiB, all of which is used."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        _add(tar, "model.yaml", (_MODEL_YAML % 0).replace(b"name: m", b"name: u%d" % number))
        _add(tar, "zeros", bytes(70 << 20))
        _add(tar, "noise", os.urandom(3 << 20))
    archive = folder / f"u{number}.tar.xz"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 64 << 20}]
    archive.write_bytes(lzma.compress(content.getvalue(), filters=filters))
    return archive


def _did_not_grow(before: Footprint, after: Footprint) -> None:
    assert after.memory < before.memory + _GROWTH, f"{before} became {after}"
    # Imported files may be read back for half a minute, so a few are open.
    assert after.descriptors <= before.descriptors + 4 + MOST_FILES, f"{before} became {after}"
    assert after.threads <= before.threads + 4, f"{before} became {after}"
    assert after.files <= before.files + 4, f"{before} became {after}"


def _lists(mount: Mounted) -> bool:
    """Tell whether every name of a listing can be looked at."""
    places = [mount.path / "models", mount.path / "by-format"]
    done = subprocess.run(["ls", "-lR", *places], capture_output=True, timeout=120, check=False)
    return done.returncode == 0


def _at_rest(mount: Mounted) -> Footprint:
    """Measure the daemon once the read files are closed."""
    wait_until(lambda: _footprint(mount).descriptors < 60, 60, "files are let go")
    return _footprint(mount)


def _footprint(mount: Mounted) -> Footprint:
    process = Path(f"/proc/{mount.pid}")
    status = (process / "status").read_text()
    homes = home_of(mount.base)
    own = [area_of(mount.store), *(Path(homes[name]) for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"))]
    return Footprint(
        _kilobytes(status, "VmRSS") * 1024,
        len(os.listdir(process / "fd")),
        _kilobytes(status, "Threads"),
        sum(len(files) for place in own for _, _, files in os.walk(place)),
    )


def _most_memory(mount: Mounted) -> int:
    return _kilobytes(Path(f"/proc/{mount.pid}/status").read_text(), "VmHWM") * 1024


def _kilobytes(status: str, name: str) -> int:
    return int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0])


def _read(mount: Mounted, number: int, suffix: str) -> None:
    size = 0
    path = mount.path / f"models/m/v{number}/m-v{number}{suffix}"
    with path.open("rb", buffering=0) as file:
        while count := len(file.read(1 << 20)):
            size += count
    assert size == path.stat().st_size


def _archive(number: int) -> bytes:
    """Make a tar of a model of many small text files."""
    chance = random.Random(number)
    words = [chance.randbytes(4).hex().encode() for _ in range(2000)]
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        _add(tar, "model.yaml", _MODEL_YAML % number)
        for file in range(_FILES):
            _add(tar, f"text/{file}", b" ".join(chance.choices(words, k=200)))
    return made.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


_MODEL_YAML = b"""\
name: m
version: v%d
module: x
labels: {}
options: {}
metadata: {}
context: {framework_name: '', framework_versions: {}, bentoml_version: 1.4.40, python_version: 3.11.7}
signatures: {}
api_version: v1
creation_time: '2026-01-01T12:00:00+00:00'
"""
