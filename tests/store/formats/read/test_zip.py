"""Unusual zips that UnZip, 7z, bsdtar or Python read."""

import functools
import os
import random
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from bentofs.store.errors import DamagedArchiveError, NotAModelError, UnsafeMemberError
from bentofs.store.formats.crc32 import crc32_of_repeated
from bentofs.store.formats.read import zip as unzip
from bentofs.store.formats.read import zip_directory, zip_records
from bentofs.store.formats.read.extract import extract
from bentofs.store.formats.read.growing_file import WholeFile
from tests.harness import run
from tests.store.formats.discarding import Discarding
from tests.store.formats.raw_zip import RawMember, central_part, deflated, end_part, local_part, raw_zip, stored
from tests.store.formats.unpacking import MODEL_YAML, PLAIN, Trickling, tree_of, unpacked, write_files

_YAML = stored("model.yaml", MODEL_YAML)
_FAT, _UNIX, _NTFS, _UTF8 = 0, 3, 11, 0x800
_GIB = 1 << 30


def _unicode_path(raw: bytes, name: str) -> bytes:
    """Return Info-ZIP's Unicode path field."""
    content = struct.pack("<BL", 1, zlib.crc32(raw)) + name.encode()
    return struct.pack("<2H", 0x7075, len(content)) + content


# Names


@pytest.mark.parametrize(
    ("member", "path"),
    [
        (stored(rb"a\b", made_by=_FAT), "a/b"),
        (stored(rb"a\b", made_by=_NTFS), "a/b"),
        (stored(rb"a\b", made_by=_UNIX), "a\\b"),
        (stored(rb"a\b/c\d", made_by=_FAT), "a\\b/c\\d"),
        (stored("ü\\表".encode(), made_by=_FAT, flags=_UTF8), "ü/表"),
        (stored("ü\\表".encode(), made_by=_FAT), "ü/表"),
        (stored("Größe\\x".encode("cp437"), made_by=_FAT), "Größe/x"),
        (stored("表".encode("cp932"), made_by=_FAT), "ò\\"),
        (stored("s/表.bin".encode("cp932"), made_by=_FAT), "s/ò\\.bin"),
        (stored("データ\\表.bin".encode("cp932"), made_by=_FAT), "âfü[â^/ò\\.bin"),
        (stored("ｱ\\ソ".encode("cp932"), made_by=_FAT), "▒\\â\\"),  # in GBK, the first two bytes are one character
        (stored("乗\\誠".encode("gbk"), made_by=_FAT), "ü\\/╒\\"),
        (stored("功\\許".encode("big5"), made_by=_FAT), "Ñ\\/│\\"),
        (stored(b"x", made_by=_FAT, extra=_unicode_path(b"x", "ü\\表")), "ü/表"),
        (stored(b"x", made_by=_UNIX, extra=_unicode_path(b"x", "ü\\表")), "ü\\表"),
        (stored(b"x", made_by=_FAT, extra=_unicode_path(b"y", "of another name")), "x"),
        (stored(b"\xff\\x", made_by=_UNIX), "\udcff\\x"),
    ],
)
def test_backslashes(member: RawMember, path: str) -> None:
    expected = tree_of({"model.yaml": MODEL_YAML, path: b""})
    assert unpacked(raw_zip([_YAML, member])) == expected


@pytest.mark.parametrize("name", [rb"a\b", rb"a\b/c\d", b"d\\e\\"])
def test_backslashes_as_tools_have_them(name: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(raw_zip([_YAML, stored(name, made_by=_FAT)]))
    expected = unpacked(tmp_path / "x.zip")
    done = subprocess.run(["unzip", "-q", "-d", "unzip", "x.zip"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode in (0, 1)  # 1: it warns of the backslashes
    (tmp_path / "bsdtar").mkdir()
    run("bsdtar", "-xf", "../x.zip", cwd=tmp_path / "bsdtar")
    for tool in ("unzip", "bsdtar"):
        assert set(look_anyhow(tmp_path / tool)) == set(expected), tool


def look_anyhow(folder: Path) -> list[str]:
    """List the paths in a directory, whatever their modes."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]


# Parts


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("plain") / "iris", PLAIN)


@pytest.mark.parametrize("mark", [b"PK\7\10", b"PK00"])
def test_one_part_that_was_to_be_split(model: Path, tmp_path: Path, mark: bytes) -> None:
    """Info-ZIP writes the first mark, and PKWARE the second."""
    run("zip", "-qr", "-s", "4g", tmp_path / "x.zip", ".", cwd=model)
    archive = (tmp_path / "x.zip").read_bytes()
    assert archive.startswith(b"PK\7\10PK\3\4")
    archive = mark + archive[4:]
    (tmp_path / "x.zip").write_bytes(archive)
    run("7z", "t", tmp_path / "x.zip")
    assert unpacked(archive) == tree_of(PLAIN)
    with Trickling(archive, 1) as arriving:
        assert unpacked(arriving) == tree_of(PLAIN)
        assert not arriving.asked_for_length


def test_a_part_of_several_says_so(model: Path, tmp_path: Path) -> None:
    run("zip", "-qr", "-s", "70k", tmp_path / "x.zip", ".", cwd=model)
    parts = sorted(tmp_path.iterdir())
    assert [part.suffix for part in parts] == [".z01", ".z02", ".zip"]
    for part in parts:
        with pytest.raises((DamagedArchiveError, NotAModelError), match="one part of several"):
            unpacked(part)
    run("zip", "-q", "-s", "0", parts[-1], "--out", tmp_path / "joined.zip")
    assert unpacked(tmp_path / "joined.zip") == tree_of(PLAIN)


def test_the_last_part_of_several_with_whole_members() -> None:
    archive = bytearray(raw_zip([_YAML]))
    struct.pack_into("<2H", archive, archive.index(b"PK\5\6") + 4, 2, 2)  # this part, and the directory's
    with pytest.raises(DamagedArchiveError, match="one part of several"):
        unpacked(bytes(archive))


# Modes


def test_what_came_through_a_pipe_is_a_file(model: Path, tmp_path: Path) -> None:
    run("zip", "-q", tmp_path / "x.zip", "model.yaml", cwd=model)
    run("sh", "-c", 'cat run.sh | zip -q "$0" -', tmp_path / "x.zip", cwd=model)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.getinfo("-").external_attr >> 28 == 1, "a pipe's mode"
    assert unpacked(tmp_path / "x.zip") == {
        "model.yaml": (MODEL_YAML, False),
        "-": (PLAIN["run.sh"], False),
    }


@pytest.mark.parametrize(
    ("mode", "executable"),
    [(0o100755, True), (0o755, True), (0o010755, True), (0o177777, False), (0o030777, False), (0o150755, False)],
)
def test_modes(mode: int, executable: bool) -> None:
    archive = raw_zip([_YAML, stored("x", b"x", mode=mode)])
    assert unpacked(archive)["x"] == (b"x", executable)


@pytest.mark.parametrize("mode", [0o020666, 0o060666, 0o140666, 0o010666])
def test_devices_and_pipes_without_content_are_refused(mode: int) -> None:
    with pytest.raises(UnsafeMemberError, match="a device, pipe or socket"):
        unpacked(raw_zip([_YAML, stored("x", mode=mode)]))


# Bytes behind the end


@pytest.mark.parametrize("behind", [b"\n", b"\r\n", b"x", b"\0\0\0\n", b"\r\n--boundary--\r\n", b"<html>" * 9000])
@pytest.mark.parametrize("comes", [True, False], ids=["as it comes", "by its directory"])
def test_a_little_behind_the_end_is_ignored(tmp_path: Path, behind: bytes, comes: bool) -> None:
    members = [_YAML, stored("x", b"content", flags=0 if comes else 0x8)]
    path = tmp_path / "x.zip"
    path.write_bytes(raw_zip(members, behind=behind))
    assert unpacked(path) == tree_of({"model.yaml": MODEL_YAML, "x": b"content"})
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert run("unzip", "-p", path, "x").stdout == run("7z", "x", "-so", path, "x").stdout == "content"


@pytest.mark.parametrize("comes", [True, False], ids=["as it comes", "by its directory"])
def test_more_of_a_zip_behind_the_end_is_refused(comes: bool) -> None:
    archive = raw_zip([_YAML, stored("x", b"content", flags=0 if comes else 0x8)])
    another = raw_zip([_YAML, stored("y", b"content of another")])
    for behind in (another, b"\n" + another, another[:-30], bytes(65_537) + b"x"):
        with pytest.raises(DamagedArchiveError):
            unpacked(archive + behind)


# Numbers that are cut off


@pytest.mark.parametrize("comes", [True, False], ids=["as it comes", "by its directory"])
def test_more_members_than_16_bits_count(tmp_path: Path, comes: bool) -> None:
    count = 65_536 + 10
    members = [stored(f"shard{number}", b"x") for number in range(count - 1)]
    members.append(stored("last", b"y" * 100, flags=0 if comes else 0x8))
    path = tmp_path / "x.zip"
    path.write_bytes(raw_zip(members))
    target = Discarding()
    with path.open("rb") as file:
        extract(WholeFile(file.fileno()), target)
    assert len(target.crcs) == count
    assert target.crcs["last"] == zlib.crc32(b"y" * 100)
    assert target.restarted == (not comes)
    assert f"{count} files" in run("7z", "l", path).stdout


@pytest.fixture
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> int:
    """Cut numbers off at 12 bits, so that little content exceeds them."""
    for module in (unzip, zip_directory, zip_records):
        monkeypatch.setattr(module, "WRAP32", 1 << 12)
    return 1 << 12


@pytest.mark.parametrize("kind", ["as it comes", "stored", "mixed", "in another order", "with a gap"])
@pytest.mark.parametrize("seed", range(4))
def test_cut_off_numbers(small_numbers: int, kind: str, seed: int) -> None:
    dice = random.Random(seed)
    files: dict[str, bytes | None] = {"model.yaml": MODEL_YAML}
    for number in range(12):
        length = dice.choice([0, 10, 4_000, 4_095, 4_096, 4_097, 9_000, 20_000])
        files[f"f{number}"] = dice.randbytes(length) if dice.random() < 0.6 else bytes(length)
    files["last"] = dice.randbytes(10_000)
    makers: list[Callable[..., RawMember]] = [
        deflated,
        functools.partial(deflated, flags=0),
        stored,
        functools.partial(stored, flags=0x8),
    ]
    makers = {"as it comes": makers[:2], "stored": makers[2:3]}.get(kind, makers)
    members = [dice.choice(makers)(path, content) for path, content in files.items()]
    archive = _cut_off(members, small_numbers, dice, kind)
    assert unpacked(archive) == tree_of(files)
    with Trickling(archive, seed) as arriving:
        assert unpacked(arriving) == tree_of(files)
        assert arriving.asked_for_length == (kind != "as it comes")
    broken = bytearray(archive)
    broken[archive.index(members[-1].content) + 5_000] ^= 1
    with pytest.raises(DamagedArchiveError):
        unpacked(bytes(broken))


def _cut_off(members: list[RawMember], wrap: int, dice: random.Random, kind: str) -> bytes:
    """Return a zip with cut-off numbers. Its directory may be in another order, or skip a gap."""
    archive, records = bytearray(), []
    for member in members:
        size = len(member.content) if member.size is None else member.size
        crc = zlib.crc32(member.content) if member.crc32 is None else member.crc32
        records.append(central_part(member, size, len(member.content), crc, len(archive), wrap))
        header, descriptor = local_part(member, size, len(member.content), crc, wrap)
        archive += header + member.content + descriptor
        if kind == "with a gap" and member is members[3]:
            archive += dice.randbytes(3 * wrap + 1)
    if kind == "in another order":
        dice.shuffle(records)
    directory = b"".join(records)
    return bytes(archive + directory + end_part(len(records), len(directory), len(archive), wrap))


@pytest.mark.parametrize("kind", ["gap", *(["stored", "deflated"] if "BENTOFS_LONG" in os.environ else [])])
def test_more_than_4_gib_without_zip64(tmp_path: Path, kind: str) -> None:
    """macOS's Archive Utility writes such a zip. Its real sizes take a minute: BENTOFS_LONG=1."""
    size = (1 << 32) + 5
    crc = crc32_of_repeated(b"\0", size)
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        records = [_written(file, deflated("model.yaml", MODEL_YAML))]
        if kind == "gap":
            file.seek(size, os.SEEK_CUR)
        else:
            large = RawMember(b"large", method=8 * (kind == "deflated"), flags=8 * (kind == "deflated"))
            offset = file.tell()
            header, _ = local_part(large, size, size, crc)
            file.write(header)
            packed = -file.tell()
            if kind == "stored":
                file.seek(size, os.SEEK_CUR)
            else:
                _write_zeros_deflated(file, size)
            packed += file.tell()
            _, descriptor = local_part(large, size, packed, crc)
            file.write(descriptor)
            records.append(central_part(large, size, packed, crc, offset))
        records += [_written(file, deflated(f"behind{number}", b"%d" % number)) for number in range(3)]
        start = file.tell()
        file.write(b"".join(records) + end_part(len(records), len(b"".join(records)), start))
    target = Discarding()
    with path.open("rb") as archive:
        extract(WholeFile(archive.fileno()), target)
    assert target.crcs["behind2"] == zlib.crc32(b"2")
    assert target.restarted == (kind != "deflated")
    if kind != "gap":
        assert (target.sizes["large"], target.crcs["large"]) == (size, crc)
    path.unlink()


def _written(file: IO[bytes], member: RawMember) -> bytes:
    """Write a member, and return its record for the directory."""
    assert member.size is not None
    assert member.crc32 is not None
    offset = file.tell()
    header, descriptor = local_part(member, member.size, len(member.content), member.crc32)
    file.write(header + member.content + descriptor)
    return central_part(member, member.size, len(member.content), member.crc32, offset)


def _write_zeros_deflated(file: IO[bytes], size: int) -> None:
    """Write zeros as stored blocks of deflate, whose contents are holes."""
    while size:
        count = min(size, 0xFFFF)
        size -= count
        file.write(struct.pack("<B2H", not size, count, count ^ 0xFFFF))
        file.seek(count, os.SEEK_CUR)
