"""zip at the limit of its fields, where zip64 begins, without real data; checksums are asked for as late as
possible."""

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.formats.pieces import Piece, PieceList, read_bytes
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.zip import lay_out_zip, zip_length
from tests.harness import run
from tests.store.content import Memory, Numbered, PieceFile, Unfilled, numbers, whole
from tests.store.formats.laying_out import check_memory
from tests.store.formats.writers import write_zip, zip64_where_needed, zip_info

_GIB = 1 << 30
_MTIME = 1_767_323_045
_LIST_BY_PERL = 'my $z = Archive::Zip->new(); $z->read($ARGV[0]) == 0 or die; print "$_\\n" for $z->memberNames()'


def _file(path: str, length: int = 0) -> Member:
    return Member(path, False, False, Numbered(length, crc=length & 0xFFFFFFFF) if length else None)


def _checksum(member: Member) -> int:
    assert isinstance(member.content, Memory | Numbered | Unfilled)
    return member.content.crc32()


def _opened(pieces: PieceList) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BufferedReader(PieceFile(pieces), 1 << 16))


_SIZES = [2 * _GIB, 3 * _GIB + 1, 4 * _GIB - 2, 4 * _GIB - 1, 4 * _GIB, 4 * _GIB + 1, 8 * _GIB + 1, 100 * _GIB]


@pytest.mark.parametrize("size", _SIZES)
def test_sizes_and_offsets_beyond_the_fields(size: int) -> None:
    members = [_file("model.yaml", 10), _file("weights", size), _file("behind", 1000), Member("d", True, True, None)]
    laid_out = lay_out_zip(members, _MTIME, _checksum)
    assert laid_out.length == zip_length(members, _MTIME)
    with _opened(laid_out) as archive:
        infos = archive.infolist()
        assert [(info.filename, info.file_size, info.compress_size, info.CRC) for info in infos] == [
            ("model.yaml", 10, 10, 10),
            ("weights", size, size, size & 0xFFFFFFFF),
            ("behind", 1000, 1000, 1000),
            ("d/", 0, 0, 0),
        ]
        assert infos[1].extract_version == (45 if size >= 0xFFFFFFFF else 20)
        offsets = [info.header_offset for info in infos]
    for member, info, offset in zip(members, infos, offsets, strict=True):
        wanted = zip_info(member, _MTIME, info.filename)
        wanted.file_size = wanted.compress_size = member.size
        wanted.CRC = info.CRC
        with zip64_where_needed():
            header = wanted.FileHeader()
        assert read_bytes(laid_out, offset, len(header)) == header
        middle, end = member.size // 2, min(100, member.size)
        assert read_bytes(laid_out, offset + len(header) + middle, min(100, member.size - middle)) == numbers(
            middle, min(100, member.size - middle)
        )
        if end:
            start = member.size - end
            assert read_bytes(laid_out, offset + len(header) + start, end) == numbers(start, end)


@pytest.mark.parametrize("size", _SIZES)
def test_tools_read_what_is_behind_a_large_member(size: int, tmp_path: Path) -> None:
    """The files are sparse: the end and the headers are written, the contents are holes."""
    members = [_file("model.yaml", 10), _file("weights", size), Member("behind", False, False, Memory(b"behind"))]
    laid_out = lay_out_zip(members, _MTIME, _checksum)
    path = tmp_path / "sparse.zip"
    with path.open("wb") as file:
        file.truncate(laid_out.length)
        for start in (0, laid_out.length - 4096):
            file.seek(start)
            file.write(read_bytes(laid_out, start, 4096))
    readers = [
        ["unzip", "-p", path, "behind"],
        ["7z", "x", "-so", path, "behind"],
        ["bsdtar", "-xOf", path, "behind"],
        ["busybox", "unzip", "-p", path, "behind"],
    ]
    if size == 0xFFFFFFFF:
        del readers[0]  # UnZip 6.00 takes this size for the mark of a zip64 field in the next record
    if size >= 0xFFFFFFFF - 100:
        del readers[-1]  # busybox 1.35 has no zip64
    for command in readers:
        assert run(*command).stdout == "behind", command
    path.unlink()


@pytest.mark.parametrize("count", [65_534, 65_535, 65_536, 70_000])
def test_counts_beyond_the_fields(count: int) -> None:
    members = [_file(f"{number:05}") for number in range(count)]
    laid_out = lay_out_zip(members, _MTIME, _checksum)
    assert laid_out.length == zip_length(members, _MTIME)
    with _opened(laid_out) as archive:
        infos = archive.infolist()
        assert len(infos) == count
        assert infos[0].filename == "00000"
        assert infos[-1].filename == f"{count - 1:05}"
    end64 = b"PK\x06\x06" in read_bytes(laid_out, laid_out.length - 22 - 20 - 56, 60)
    assert end64 == (count >= 65_535)
    counted = struct.unpack("<2H", read_bytes(laid_out, laid_out.length - 22 + 8, 4))
    assert counted == (min(count, 65_535), min(count, 65_535))


@pytest.mark.parametrize("count", [65_534, 65_535])
def test_bytes_of_zipfile_and_silence_of_tools_at_the_limit_of_counts(count: int, tmp_path: Path) -> None:
    members = [_file(f"{number:05}") for number in range(count)]
    content = whole(lay_out_zip(members, _MTIME, _checksum))
    assert content == write_zip(members, _MTIME)
    path = tmp_path / "many.zip"
    path.write_bytes(content)
    listers: list[list[str | Path]] = [
        ["zipinfo", "-1", path],
        ["bsdtar", "-tf", path],
        ["perl", "-MArchive::Zip", "-e", _LIST_BY_PERL, path],
    ]
    for command in listers:
        done = run(*command)
        assert not done.stderr
        assert len(done.stdout.splitlines()) == count, command


@pytest.mark.parametrize("size", [2**31, 2**32 - 200, 2**32 - 89, 2**32 - 88, 2**32 - 87, 2**32])
def test_the_directory_begins_around_the_fields_end(size: int) -> None:
    members = [_file("weights", size), Member("d", True, True, None)]
    laid_out = lay_out_zip(members, _MTIME, _checksum)
    assert laid_out.length == zip_length(members, _MTIME)
    with _opened(laid_out) as archive:
        assert [info.file_size for info in archive.infolist()] == [size, 0]
        start = archive.start_dir
    locator = read_bytes(laid_out, laid_out.length - 42, 4) == b"PK\x06\x07"
    assert start == size + 46 + (20 if size >= 2**32 - 1 else 0) + 41  # the two local headers
    assert locator == (start >= 2**32 - 1)


@pytest.mark.parametrize(
    ("name", "flag"),
    [("ascii name", 0), ("модель", 0x800), (b"\xff\xfe undecodable".decode("utf-8", "surrogateescape"), 0)],
)
def test_the_flag_says_utf8_only_where_it_is(name: str, flag: int) -> None:
    laid_out = lay_out_zip([_file(name, 3)], _MTIME, _checksum)
    raw = name.encode("utf-8", "surrogateescape")
    local = read_bytes(laid_out, 0, 30 + len(raw))
    assert struct.unpack_from("<H", local, 6) == (flag,)
    assert local[30:] == raw
    directory = read_bytes(laid_out, laid_out.length - 22 - 46 - len(raw) - 9, 46 + len(raw))
    assert struct.unpack_from("<H", directory, 8) == (flag,)
    assert directory[46:] == raw


@pytest.mark.parametrize(
    ("mtime", "date_time", "extra"),
    [
        (0, (1980, 1, 1, 0, 0, 0), 9),
        (315_532_799, (1980, 1, 1, 0, 0, 0), 9),
        (_MTIME, (2026, 1, 2, 3, 4, 4), 9),
        (2**31 - 1, (2038, 1, 19, 3, 14, 6), 9),
        (2**31, (2038, 1, 19, 3, 14, 8), 0),
        (253_402_300_799, (2107, 12, 31, 23, 59, 58), 0),
    ],
)
def test_times(mtime: int, date_time: tuple[int, ...], extra: int) -> None:
    members = [_file("model.yaml", 3)]
    laid_out = lay_out_zip(members, mtime, _checksum)
    assert laid_out.length == zip_length(members, mtime)
    with _opened(laid_out) as archive:
        info = archive.infolist()[0]
    assert info.date_time == date_time
    assert len(info.extra) == extra
    if extra:
        assert info.extra == struct.pack("<2sHBl", b"UT", 5, 1, mtime)


def test_checksums_are_asked_for_as_late_as_can_be() -> None:
    asked: list[str] = []

    def ask(of: Callable[[Member], int]) -> Callable[[Member], int]:
        def checksum(member: Member) -> int:
            asked.append(member.path)
            return of(member)

        return checksum

    members = [_file("model.yaml", 10), _file("empty"), _file("a", 5000), _file("b", 70)]
    laid_out = lay_out_zip(members, _MTIME, ask(_checksum))
    zip_length(members, _MTIME)
    read_bytes(laid_out, laid_out.length - 22, 22)
    assert asked == []
    read_bytes(laid_out, 0, 30 + 10 + 9 + 10)
    assert set(asked) == {"model.yaml"}
    asked.clear()
    last_record = 46 + 1 + 9
    read_bytes(laid_out, laid_out.length - 22 - last_record, last_record)
    assert set(asked) == {"b"}
    asked.clear()
    whole(laid_out)
    assert set(asked) == {"model.yaml", "a", "b"}


def test_memory_does_not_grow_with_the_content() -> None:
    def lay_out(length: int) -> Piece:
        members = [Member(f"{number}", False, False, Unfilled(length // 10)) for number in range(10)]
        return lay_out_zip(members, 0, _checksum)

    check_memory(lay_out, most=1 << 20, spread=500)


def test_the_next_large_members_checksum_is_made_while_one_is_read_in_order() -> None:
    large = 1 << 20
    members = [
        _file("a", large),
        _file("small", 1000),
        Member("d", True, True, None),
        _file("b", large),
        _file("c", large),
    ]
    told: list[tuple[str, int]] = []
    wanted = {"b", "c"}

    def ahead(member: Member, count: int) -> bool:
        told.append((member.path, count))
        return member.path in wanted

    laid_out = lay_out_zip(members, _MTIME, _checksum, ahead)
    with _opened(laid_out) as archive:
        starts = {info.filename: info.header_offset + 30 + len(info.filename) + 9 for info in archive.infolist()}
    told.clear()
    read_bytes(laid_out, starts["a"], 100_000)
    read_bytes(laid_out, starts["a"] + 100_000, 50_000)
    assert told == [("b", 100_000), ("b", 50_000)]
    told.clear()
    for offset in (500_000, 0, 149_999):  # scattered, with bytes that were read already
        read_bytes(laid_out, starts["a"] + offset, 1000)
    read_bytes(laid_out, starts["small"], 1000)
    read_bytes(laid_out, starts["c"], 1000)  # no member follows
    assert told == []
    wanted.clear()
    for offset in (0, 1000, 2000):
        read_bytes(laid_out, starts["b"] + offset, 1000)
    assert told == [("c", 1000)], "it need not be told again"
