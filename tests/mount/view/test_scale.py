"""Large models and many files through a real mount: exact, in bounded memory, at any offset as fast as at the first."""

import os
import re
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Mounted, make_model, run

GIB = 1 << 30
MEMORY = 120 << 20  # bytes: the promise
MANY = 65_600 if "BENTOFS_LONG" in os.environ else 9_000  # files


def peak_memory(pid: int) -> int:
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(kilobytes) * 1024


@pytest.fixture
def hundred_gib(store: Path) -> Path:
    """Return four sparse files of 25 GiB, with some data near their ends."""
    folder = make_model(store, "big:v1", {f"part{number}.bin": 25 * GIB for number in range(4)})
    for number in range(4):
        with (folder / f"part{number}.bin").open("r+b") as file:
            file.seek(25 * GIB - 100)
            file.write(b"end of %d" % number)
    os.utime(folder, ns=(1, 1))
    return store


def test_hundred_gib(hundred_gib: Path, mounted: Callable[..., Mounted]) -> None:
    mount = mounted(hundred_gib, own_process=True)
    sizes = {suffix: mount.archive("big:v1", suffix).stat().st_size for suffix in (".tar", ".bentomodel", ".tar.gz")}
    assert all(100 * GIB < size < 100.02 * GIB for size in sizes.values())
    with tarfile.open(mount.archive("big:v1", ".tar")) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == ["model.yaml", *(f"part{number}.bin" for number in range(4))]
        assert [member.size for member in members[1:]] == [25 * GIB] * 4
        last = tar.extractfile(members[-1])
        assert last is not None
        last.seek(25 * GIB - 100)
        assert last.read().rstrip(b"\0") == b"end of 3"
    blocks = run("xz", "--robot", "-l", "--format=xz", mount.archive("big:v1", ".bentomodel")).stdout
    assert int(re.findall(r"^totals\t(?:\d+)\t(\d+)", blocks, re.MULTILINE)[0]) == 1 + 4 * -(-25 * GIB // 4_194_087)
    # Read from the middle and from the end, in every format, like `dd skip=` and `tail -c`.
    for suffix, size in sizes.items():
        with mount.archive("big:v1", suffix).open("rb", buffering=0) as file:
            for offset in (0, size // 2, size - 9_000_000):
                file.seek(offset)
                assert len(file.read(1_000_000)) == 1_000_000
    for suffix in (".bentomodel", ".tar.gz"):
        run(
            "dd",
            f"if={mount.archive('big:v1', suffix)}",
            "of=/dev/null",
            "bs=1M",
            "count=1500",
            "skip=30000",
            seconds=90,
        )
    assert peak_memory(mount.pid) < MEMORY


def test_zip64(store: Path, mounted: Callable[..., Mounted]) -> None:
    """Sizes and offsets past 4 GiB, by three readers. The CRC is of zeros, and computed by other code than bentofs."""
    files: dict[str, bytes | int] = {"a.bin": 4 * GIB + 5, "b.bin": b"after it"}
    make_model(store, "big:v1", files)
    mount = mounted(store, own_process=True)
    path = mount.archive("big:v1", ".zip")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("a.bin")
        assert info.file_size == 4 * GIB + 5
        crc = 0
        for _ in range(4096):
            crc = zlib.crc32(bytes(1 << 20), crc)
        assert zlib.crc32(bytes(5), crc) == info.CRC
        assert archive.getinfo("b.bin").header_offset > 4 * GIB
        assert archive.read("b.bin") == b"after it"
    assert "4294967301" in run("unzip", "-l", path).stdout
    assert run("unzip", "-p", path, "b.bin").stdout == "after it"
    assert "b.bin" in run("bsdtar", "tf", path).stdout
    assert peak_memory(mount.pid) < MEMORY


def test_many_files(store: Path, mounted: Callable[..., Mounted]) -> None:
    """Names longer than 100 characters among them. With BENTOFS_LONG=1, more members than a zip counts in 16 bits."""
    files: dict[str | bytes, bytes | int] = {f"d{n % 100:02}/{n:06}" + "x" * (n % 130): b"%d" % n for n in range(MANY)}
    last = MANY - 1
    make_model(store, "many:v1", files)
    mount = mounted(store, own_process=True)
    listed = run("tar", "tf", mount.archive("many:v1", ".tar")).stdout.splitlines()
    assert len(listed) == len(files) + 100 + 1
    with zipfile.ZipFile(mount.archive("many:v1", ".zip")) as archive:
        assert len(archive.namelist()) == len(files) + 100 + 1
        for name in ("d00/000000", f"d{last % 100:02}/{last:06}" + "x" * (last % 130)):
            assert archive.read(name) == files[name]
    assert sum(len(names) for _, _, names in os.walk(mount.path / "models/many/v1/files")) == len(files) + 1
    with mount.archive("many:v1", ".zip").open("rb") as file:
        file.seek(-22, os.SEEK_END)
        assert struct.unpack("<4s4H", file.read(12))[3] == min(len(files) + 101, 0xFFFF)  # else the zip64 record counts


def test_many_files_whole(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    files: dict[str | bytes, bytes | int] = {f"{n % 97}/{n}.json": b'{"n": %d}' % n for n in range(MANY // 3)}
    folder = make_model(store, "many:v1", files)
    mount = mounted(store, own_process=True)
    for suffix, command in ((".bentomodel", "tar xJf"), (".tar.gz", "tar xzf"), (".zip", "unzip -q")):
        target = tmp_path / f"out{suffix}"
        target.mkdir()
        run(*command.split(), mount.archive("many:v1", suffix), cwd=target)
        run("diff", "-r", folder, target)
    run("diff", "-r", folder, mount.path / "models/many/v1/files")
    assert peak_memory(mount.pid) < MEMORY


def test_a_model_of_model_yaml_alone(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    folder = make_model(store, "bare:v1", {})
    mount = mounted(store)
    for suffix, command in (
        (".tar", "tar xf"),
        (".bentomodel", "tar xJf"),
        (".tar.gz", "tar xzf"),
        (".zip", "unzip -q"),
    ):
        target = tmp_path / f"out{suffix}"
        target.mkdir()
        run(*command.split(), mount.archive("bare:v1", suffix), cwd=target)
        run("diff", "-r", folder, target)


NAMES: dict[str | bytes, bytes | int] = {
    "мир/世界/ü.bin": b"1",
    "with space/and 'quotes' \"both\".bin": b"2",
    "new\nline\tand tab": b"3",
    "back\\slash": b"4",
    "-rf": b"5",
    "a" * 200 + "/" + "b" * 250: b"6",
    "empty file": b"",
    "empty folder/": b"",
    b"not utf-8 \xff\xfe.bin": b"7",
    "é (decomposed)": b"8",
    "é (composed)": b"9",
}


@pytest.mark.parametrize("suffix", [".tar", ".bentomodel", ".tar.gz"])
def test_names_through_tar(store: Path, mounted: Callable[..., Mounted], tmp_path: Path, suffix: str) -> None:
    folder = make_model(store, "names:v1", NAMES)
    mount = mounted(store)
    archive = mount.archive("names:v1", suffix)
    for command in ("tar", "bsdtar"):
        target = tmp_path / command
        target.mkdir()
        if suffix == ".bentomodel":
            run(command, "xf", "-", cwd=target, stdin=_decoded(archive))
        else:
            run(command, "xf", archive, cwd=target)
        run("diff", "-r", folder, target)
    run("diff", "-r", folder, mount.path / "models/names/v1/files")


def _decoded(path: Path) -> int:
    """Return a descriptor from which to read the output of `xz -dc`."""
    target = os.memfd_create("decoded")
    with path.open("rb") as file:
        subprocess.run(["xz", "-dc"], stdin=file, stdout=target, check=True, timeout=60)
    os.lseek(target, 0, os.SEEK_SET)
    return target


def test_names_through_zip(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    names = {name: content for name, content in NAMES.items() if isinstance(name, str)}
    folder = make_model(store, "names:v1", names)
    mount = mounted(store)
    with zipfile.ZipFile(mount.archive("names:v1", ".zip")) as archive:
        archive.extractall(tmp_path / "python")
    run("diff", "-r", folder, tmp_path / "python")
    run("unzip", "-q", "-^", mount.archive("names:v1", ".zip"), "-d", tmp_path / "unzip")  # -^: keep control characters
    run("diff", "-r", folder, tmp_path / "unzip")
