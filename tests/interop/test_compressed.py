"""Compressed archives through a real mount, judged by common tools and by BentoML."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Mounted, make_model, run
from tests.interop.conftest import Judge
from tests.interop.reading import check_same_tree, check_tarfile, check_zipfile

TAG = "tools:v1"
TARS = (".bentomodel", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2")
SUFFIXES = (*TARS, ".zip")
FORMATS = ",".join(suffix[1:] for suffix in SUFFIXES)

_DICE = random.Random(4)
_WORDS = [_DICE.randbytes(4).hex().encode() for _ in range(1000)]
FILES: dict[str | bytes, bytes | int] = {
    "weights/random.bin": _DICE.randbytes(1_300_003),
    "weights/zeros.bin": 4 << 20,
    "text/corpus.txt": b" ".join(_DICE.choices(_WORDS, k=250_000)),
    "empty.bin": b"",
    "an empty folder/": b"",
    "names/Ünïcödé 模型.txt": b"any script",
    "names/" + "long-" * 40 + ".txt": b"longer than a tar header's 100 characters",
    "run.sh": b"#!/bin/sh\necho it runs\n",
    **{f"many/{number:04}.json": b'{"number": %d, "words": "%s"}' % (number, _WORDS[number]) for number in range(300)},
}
each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder in the store."""
    return make_model(tmp_path_factory.mktemp("tools") / "models", TAG, FILES, executable=["run.sh"])


def _mounted(store: Path, base: Path, compression: str) -> Mounted:
    return Mounted(store, base, formats=FORMATS, options=["--compression", compression])


@pytest.fixture(scope="module", params=["auto", "always"])
def mount(
    original: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mounted]:
    with _mounted(original.parent.parent, tmp_path_factory.mktemp("mount"), request.param) as mounted:
        yield mounted


def _check_extracted(original: Path, extracted: Path) -> None:
    check_same_tree(original, extracted)
    assert os.access(extracted / "run.sh", os.X_OK)


@each_suffix
def test_it_is_compressed(mount: Mounted, suffix: str) -> None:
    if suffix == ".tar" or (suffix == ".bentomodel" and "auto" in mount.options):
        assert mount.archive(TAG, suffix).stat().st_size > 7_000_000
    else:
        assert mount.archive(TAG, suffix).stat().st_size < 3_500_000


@pytest.mark.parametrize(
    ("suffix", "command"),
    [
        (".tar.gz", "gzip -t"),
        (".tar.gz", "pigz -t"),
        (".bentomodel", "xz --test --format=xz"),
        (".bentomodel", "xz --list --verbose --verbose --format=xz"),
        (".tar.xz", "xz --test"),
        (".tar.xz", "xz --list --verbose --verbose"),
        (".tar.bz2", "bzip2 -t"),
        (".zip", "unzip -tq"),
        (".zip", "zipinfo -v"),
        *((suffix, "7z t") for suffix in SUFFIXES),
    ],
)
def test_tools_find_nothing_wrong(mount: Mounted, suffix: str, command: str) -> None:
    done = run(*command.split(), mount.archive(TAG, suffix))
    for complaint in ("warning", "caution", "mismatch", "bad crc", "error:"):
        assert complaint not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
@pytest.mark.parametrize("suffix", TARS)
def test_tar(mount: Mounted, original: Path, tool: str, suffix: str, tmp_path: Path) -> None:
    assert run(tool, "-tf", mount.archive(TAG, suffix)).stdout.startswith("model.yaml\n")
    run(tool, "-xf", mount.archive(TAG, suffix), "-C", tmp_path)
    _check_extracted(original, tmp_path)


@pytest.mark.parametrize("command", ["unzip -q {} -d", "bsdtar -xf {} -C"])
def test_zip(mount: Mounted, original: Path, command: str, tmp_path: Path) -> None:
    run(*command.replace("{}", str(mount.archive(TAG, ".zip"))).split(), tmp_path)
    _check_extracted(original, tmp_path)


@pytest.mark.parametrize("suffix", TARS)
def test_python_tarfile(mount: Mounted, original: Path, suffix: str) -> None:
    check_tarfile(mount.archive(TAG, suffix), original)


def test_python_zipfile(mount: Mounted, original: Path) -> None:
    check_zipfile(mount.archive(TAG, ".zip"), original)


@each_suffix
def test_any_range_is_that_slice(mount: Mounted, suffix: str, tmp_path: Path) -> None:
    run("cp", mount.archive(TAG, suffix), tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    chance = random.Random(2)
    # Do not read the kernel's pages, which the copy has filled.
    run("dd", f"if={mount.archive(TAG, suffix)}", "iflag=nocache", "count=0")
    with mount.archive(TAG, suffix).open("rb") as file:
        assert os.fstat(file.fileno()).st_size == len(whole)
        for _ in range(60):
            offset = chance.randrange(len(whole))
            size = chance.choice((1, 4096, 131_072, 1_000_000))
            assert os.pread(file.fileno(), size, offset) == whole[offset : offset + size]


def test_the_same_bytes_after_a_remount_and_sums_that_hold(original: Path, tmp_path: Path) -> None:
    store = original.parent.parent
    for base in ("one", "two"):  # the second has no index of the first
        with _mounted(store, tmp_path / base, "auto") as mount:
            folder = mount.archive(TAG, "").parent
            checked = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=folder).stdout
            assert len(checked.splitlines()) == len(SUFFIXES)
            source = f"{mount.path}/by-format/"
            changed = run("rsync", "-aic", "--exclude=folder", source, tmp_path / "copy").stdout
            assert (">f" in changed) is (base == "one")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bentoml_imports_it(mount: Mounted, original: Path, judge: Judge, suffix: str, tmp_path: Path) -> None:
    copy = tmp_path / mount.archive(TAG, suffix).name
    run("cp", mount.archive(TAG, suffix), copy)
    check_same_tree(original, judge.imported(tmp_path, str(copy))[TAG]["path"])


def test_measuring_ahead(original: Path, tmp_path: Path) -> None:
    """A command measures ahead. The mount then reads nothing of the model."""
    mount = _mounted(original.parent.parent, tmp_path, "auto")
    command = [
        sys.executable,
        "-m",
        "bentofs.mount",
        "measure",
        TAG,
        "--store",
        str(mount.store),
        "--formats",
        "tar.gz,zip",
    ]
    done = subprocess.run(command, env=mount._environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"{TAG}: measured \([0-9.]+ MB\)\n", done.stdout)
    again = subprocess.run(
        [*command, "--compression", "never", "--formats", "tar.bz2"],
        env=mount._environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 2
    assert "cannot be made without compression" in again.stderr
