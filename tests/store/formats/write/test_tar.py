"""tar at the limit of ustar's fields, where pax headers begin, without real data."""

import io
import tarfile
from pathlib import Path

import pytest

from bentofs.store.archives.members import Members
from bentofs.store.formats.pieces import Zeros, read_bytes
from bentofs.store.formats.write.members import Member, name_length, shapes_of
from bentofs.store.formats.write.tar import (
    end_length,
    header,
    header_length,
    header_of,
    lay_out_tar,
    padding_length,
    tar_length,
    tar_spans,
)
from bentofs.store.storage.base import Entry, Identity
from bentofs.store.storage.entries import Entries
from tests.harness import run
from tests.store.content import Memory, Numbered, PieceFile, numbers, whole

_GIB = 1 << 30
_MIB = 1 << 20


def _file(path: str, length: int = 0) -> Member:
    return Member(path, False, False, Numbered(length) if length else None)


@pytest.mark.parametrize("size", [2 * _GIB, 4 * _GIB - 1, 4 * _GIB, 8 * _GIB - 1, 8 * _GIB, 8 * _GIB + 1, 100 * _GIB])
def test_sizes_beyond_the_fields(size: int) -> None:
    members = [_file("model.yaml", 10), _file("weights", size), _file("behind", 1000)]
    laid_out = lay_out_tar(members, 1)
    assert laid_out.length == tar_length(members, 1)
    file = PieceFile(laid_out)
    with tarfile.open(fileobj=io.BufferedReader(file, 1024), mode="r:") as archive:
        infos = archive.getmembers()
        assert [(info.name, info.size) for info in infos] == [("model.yaml", 10), ("weights", size), ("behind", 1000)]
        assert bool(infos[1].pax_headers) == (size >= 8 * _GIB)
        weights = archive.extractfile(infos[1])
        assert weights is not None
        weights.seek(size - 21)
        assert weights.read() == numbers(size - 21, 21)
        behind = archive.extractfile(infos[2])
        assert behind is not None
        assert behind.read() == numbers(0, 1000)
    assert file.bytes_read < _MIB


@pytest.mark.parametrize("size", [8 * _GIB - 1, 8 * _GIB, 2**40 + 3])
def test_tools_read_what_is_behind_a_large_member(size: int, tmp_path: Path) -> None:
    """The files are sparse: headers and the end are written, the content is a hole."""
    members = [_file("model.yaml", 10), _file("weights", size), Member("behind", False, False, Memory(b"behind"))]
    laid_out = lay_out_tar(members, 1)
    path = tmp_path / "sparse.tar"
    with path.open("wb") as file:
        file.truncate(laid_out.length)
        for start, stop in ((0, 4096), (laid_out.length - 20_480, laid_out.length)):
            file.seek(start)
            file.write(read_bytes(laid_out, start, stop - start))
    for tool in (["tar", "-xOf"], ["bsdtar", "-xOf"], ["busybox", "tar", "-xOf"], ["7z", "x", "-so"]):
        assert run(*tool, path, "behind").stdout == "behind", tool
    with tarfile.open(path) as archive:
        assert [info.size for info in archive] == [10, size, 6]
    path.unlink()


@pytest.mark.parametrize(
    ("path", "is_folder", "blocks"),
    [
        ("n" * 100, False, 1),
        ("n" * 101, False, 3),
        ("n" * 99, True, 1),  # a directory's name ends in a slash
        ("n" * 100, True, 3),
        ("d/" * 49 + "nn", False, 1),
        ("d/" * 50 + "n", False, 3),
        ("ü", False, 3),
        ("n" * 700, False, 4),  # the pax header itself takes two blocks
        (b"\xff".decode("utf-8", "surrogateescape"), False, 3),
    ],
)
def test_names_at_the_fields_end(path: str, is_folder: bool, blocks: int) -> None:
    member = Member(path, is_folder, False, None)
    made = header(member, 0)
    assert header_length(member, 0) == len(made) == 512 * blocks
    with tarfile.open(
        fileobj=io.BytesIO(made + bytes(1024)), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        assert [(info.name, info.isdir()) for info in archive] == [(path, is_folder)]


@pytest.mark.parametrize("letter", ["n", "ü", b"\xff".decode("utf-8", "surrogateescape")])
@pytest.mark.parametrize("size", [0, 8 * _GIB])
@pytest.mark.parametrize("mtime", [0, 8**11])
def test_lengths_of_headers_are_told_without_making_them(letter: str, size: int, mtime: int) -> None:
    """Lengths are exact where the records of a pax header need a second block, too."""
    for length in (*range(1, 20), *range(98, 103), *range(180, 270), *range(380, 530)):
        member = Member(letter * length, False, False, Zeros(size) if size else None)
        assert header_length(member, mtime) == len(header(member, mtime)), length


@pytest.mark.parametrize("mtime", [0, 2**31, 2**32, 8**11 - 1, 8**11, 253_402_300_799])
def test_times_beyond_the_fields(mtime: int) -> None:
    member = _file("model.yaml", 5)
    assert header_length(member, mtime) == len(header(member, mtime)) == (512 if mtime < 8**11 else 3 * 512)
    with tarfile.open(fileobj=PieceFile(lay_out_tar([member], mtime)), mode="r:") as archive:
        assert [int(info.mtime) for info in archive] == [mtime]


@pytest.mark.parametrize("content", range(0, 30_000, 512))
def test_the_end_fills_a_record(content: int) -> None:
    length = end_length(content)
    assert length >= 1024
    assert (content + length) % 10_240 == 0
    assert length < 1024 + 10_240


@pytest.mark.parametrize(("size", "padding"), [(0, 0), (1, 511), (511, 1), (512, 0), (8 * _GIB + 1, 511)])
def test_padding(size: int, padding: int) -> None:
    assert padding_length(size) == padding


def test_padding_is_zeros_whatever_the_buffer_held() -> None:
    laid_out = lay_out_tar([Member("model.yaml", False, False, Memory(b"abc"))], 0)
    buffer = bytearray(b"\xff" * laid_out.length)
    laid_out.read_into([memoryview(buffer)], 0)
    assert not any(buffer[512 + 3 :])
    assert bytes(buffer) == whole(laid_out)


def test_no_header_names_a_user_or_a_dot_slash() -> None:
    laid_out = lay_out_tar([_file("model.yaml", 5), Member("d", True, True, None)], 0)
    with tarfile.open(fileobj=PieceFile(laid_out), mode="r:") as archive:
        infos = archive.getmembers()
    assert {(info.uid, info.gid, info.uname, info.gname) for info in infos} == {(0, 0, "", "")}
    assert [info.name for info in infos] == ["model.yaml", "d"]


def test_ten_thousand_members() -> None:
    members = [_file("model.yaml", 5), *(_file(f"shard-{number:05}", 100) for number in range(10_000))]
    laid_out = lay_out_tar(members, 0)
    assert laid_out.length == tar_length(members, 0)
    assert laid_out.length == 10_001 * 1024 + end_length(10_001 * 1024)
    last = 1024 * 10_000
    assert read_bytes(laid_out, last, 100).rstrip(b"\0") == b"shard-09999"
    assert read_bytes(laid_out, last + 512, 100) == numbers(0, 100)


def test_shapes_tell_what_members_tell() -> None:
    """Lengths come from columns of paths and sizes, without making a member."""
    paths = ["model.yaml", "a", "a/b", "a-b", "c:x", "é", "\udcff", "d" * 99, "e" * 100, "f/" + "g" * 120, "1:x", ":"]
    entries = Entries.of(
        Entry(path, path == "a", path == "a/b", None if path == "a" else Identity(1, 2, size, 3, 4), f"m/v/{path}")
        for size, path in enumerate(paths)
    )
    members = Members(entries, lambda entry: Zeros(entry.size))
    listed = list(members)
    assert list(shapes_of(members)) == list(shapes_of(listed))
    for member, (path, is_folder, executable, size) in zip(listed, shapes_of(members), strict=True):
        assert (name_length(path, is_folder), size) == (len(member.archive_path), member.size)
        assert header_of((path, is_folder, executable, size), 1_700_000_000) == header(member, 1_700_000_000)
    for mtime in (0, 8**11):
        starts = [0]
        for member, span in zip(listed, tar_spans(members, mtime), strict=True):
            head = len(header(member, mtime))
            assert span == (
                starts[-1],
                starts[-1] + head,
                starts[-1] + head + -(-member.size // 512) * 512,
                member.size,
            )
            starts.append(span[2])
        assert lay_out_tar(members, mtime).length == tar_length(members, mtime) == starts[-1] + end_length(starts[-1])
