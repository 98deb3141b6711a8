"""Tars of real tools with rare options: read like GNU tar and bsdtar read them."""

import bz2
import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.errors import BadModelError, DamagedArchiveError, StoreError, TooBigError, UnsafeMemberError
from tests.harness import run
from tests.store.formats.raw_tar import (
    END,
    GNU,
    SPARSE_KINDS,
    Contents,
    extended,
    header,
    judged,
    long_name,
    member,
    padded,
    record,
    sparse,
)
from tests.store.formats.unpacking import MODEL_YAML, Trickling, look, unpack, unpacked

_YAML = member(b"model.yaml", MODEL_YAML)
_HOLE = 3 << 20


def _contents(archive: bytes) -> Contents:
    return {path: content for path, (content, _) in unpacked(archive).items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with sparse files, a file with two names, a link, and names too long for ustar."""
    top = tmp_path_factory.mktemp("odd") / "m"
    (top / "sub").mkdir(parents=True)
    (top / "model.yaml").write_bytes(MODEL_YAML)
    (top / "sub" / "w.bin").write_bytes(os.urandom(5000))
    (top / "sub" / ("long-" * 40)).write_bytes(b"long")
    with (top / "sparse").open("wb") as file:
        for number in range(30):  # more regions than fit in a header and a block behind it
            file.seek(number * 70_000)
            file.write(b"data" * 1100)
        file.truncate(_HOLE)
    with (top / "hole").open("wb") as file:
        file.truncate(_HOLE)
    os.link(top / "sub" / "w.bin", top / "again")
    (top / "link").symlink_to("sub/w.bin")
    return top


@pytest.mark.parametrize(
    "command",
    [
        "tar --format=gnu -G -cf $OUT .",
        "tar --format=gnu -g $OUT.snar -cf $OUT .; rm $OUT.snar",
        "tar --format=pax -g $OUT.snar -cf $OUT .; rm $OUT.snar",
        "tar --format=gnu -V label -cf $OUT .",
        "tar --format=pax -V label -cf $OUT .",
        "tar -S --format=gnu -cf $OUT .",
        "tar -S --format=oldgnu -cf $OUT .",
        "tar -S --format=pax --sparse-version=0.0 -cf $OUT .",
        "tar -S --format=pax --sparse-version=0.1 -cf $OUT .",
        "tar -S --format=pax --sparse-version=1.0 -cf $OUT .",
        "tar -S --format=pax -cf - . | xz -0 > $OUT",
        "bsdtar -cf $OUT .",
        "bsdtar -cf - . | gzip -1 > $OUT",
        "tar -cf - . | pixz -0 > $OUT",
        "tar -b 65536 -cf $OUT .",
        "tar -b 65536 -cf - . | gzip -1 > $OUT",
        "tar -cf - . | bzip2 -1 > $OUT; head -c 9999 /dev/zero >> $OUT",
        "tar -cf - . | gzip -1 > $OUT; head -c 9999 /dev/zero >> $OUT",
        "tar -cf $OUT . .",
        "bsdtar -cf $OUT . .",
        "tar -cf $OUT --exclude=sub .; tar -rf $OUT ./sub; tar -uf $OUT ./sub",
        "tar -cf $OUT --format=posix --pax-option=comment=x,globexthdr.name=/x .",
        "tar -cf $OUT --format=posix --pax-option=delete=size,exthdr.name=%d/%f .",
    ],
)
def test_what_tools_write(folder: Path, command: str) -> None:
    out = folder.parent / "out"
    out.unlink(missing_ok=True)
    run("bash", "-euc", command, cwd=folder, env={**os.environ, "OUT": str(out), "LC_ALL": "C.UTF-8"})
    archive = out.read_bytes()
    if b"bzip2" not in command.encode():  # bzip2 prints that it ignores the zeros
        assert judged(["tar"], archive) == (True, _contents(archive))
    expected = {path: content for path, (content, _) in look(_resolved(folder)).items()}
    assert _contents(archive) == expected


def _resolved(folder: Path) -> Path:
    """Copy the model with files in place of links, and with the modes of a model."""
    copy = folder.parent / "copy"
    if not copy.exists():
        subprocess.run(["cp", "-rL", "--sparse=always", folder, copy], check=True)
        subprocess.run(["chmod", "-R", "u=rwX,go=rX", copy], check=True)
    return copy


def test_holes_take_no_room(folder: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-S", "-cf", tmp_path / "out.tar", "-C", folder, "."], check=True)
    staged = unpack(tmp_path / "out.tar", tmp_path / "staged")
    for name in ("hole", "sparse"):
        assert os.stat(f"{staged.path}/{name}").st_blocks * 512 < _HOLE / 2
        assert staged.files[name].size == _HOLE
    sums = run("sha256sum", "hole", "sparse", cwd=folder).stdout.split()
    assert sums[::2] == [staged.files[name].sha256 for name in ("hole", "sparse")]


@pytest.mark.parametrize("kind", SPARSE_KINDS)
def test_maps_of_sparse_files(kind: str) -> None:
    for regions in ([], [(0, b"")], [(512, b"x" * 512)], [(0, b"x" * 512), (2048, b"y")]):
        if kind in ("0.0", "0.1") and not regions:
            continue  # then nothing shows that it is sparse
        archive = _YAML + sparse(kind, b"s", 5000, regions) + member(b"behind", b"b") + END
        expected = bytearray(5000)
        for offset, content in regions:
            expected[offset : offset + len(content)] = content
        assert _contents(archive)["s"] == bytes(expected), regions
        assert judged(["bsdtar"], archive)[1] == _contents(archive)


@pytest.mark.parametrize("kind", SPARSE_KINDS)
@pytest.mark.parametrize(
    "regions",
    [
        [(512, b"x" * 512), (0, b"x")],  # out of order
        [(0, b"x" * 512), (500, b"x")],  # overlapping
        [(0, b"x" * 100), (512, b"x")],  # not a whole block: GNU tar and bsdtar look for the next one elsewhere
        [(4000, b"x" * 2000)],  # behind the end
        [(1 << 63, b"x")],
    ],
)
def test_maps_that_do_not_hold_together(kind: str, regions: list[tuple[int, bytes]]) -> None:
    with pytest.raises(DamagedArchiveError, match=r"sparse|extended|size"):
        unpacked(_YAML + sparse(kind, b"s", 5000, regions) + END)


@pytest.mark.parametrize("kind", SPARSE_KINDS)
def test_a_map_that_promises_more_than_the_archive_holds(kind: str) -> None:
    file = sparse(kind, b"s", 1024, [(0, b"x" * 1024)]).removesuffix(b"x" * 1024)
    with pytest.raises(DamagedArchiveError):
        unpacked(_YAML + file + END)
    for compress in (bytes, gzip.compress):
        with pytest.raises(StoreError):
            unpacked(compress(_YAML + file))


@pytest.mark.parametrize("kind", SPARSE_KINDS)
def test_holes_count_as_what_they_expand_to(kind: str) -> None:
    archive = _YAML + sparse(kind, b"s", 1 << 34, [((1 << 34) - 1, b"x")]) + END
    for compress in (bytes, gzip.compress):
        with pytest.raises(TooBigError, match="1,000 times"):
            unpacked(compress(archive))
    with pytest.raises(TooBigError, match="--max-expanded"):
        unpacked(_YAML + sparse(kind, b"s", 1 << 61, [((1 << 61) - 1, b"x")]) + END)


@pytest.mark.parametrize("kind", SPARSE_KINDS)
def test_a_file_has_only_so_many_pieces(kind: str) -> None:
    regions = [(at * 1024, b"") for at in range(100_001)]
    with pytest.raises(TooBigError):
        unpacked(gzip.compress(_YAML + sparse(kind, b"s", 1 << 27, regions) + END, 1))


def test_a_map_with_half_a_region() -> None:
    for records in (
        [(b"offset", b"0")],
        [(b"numbytes", b"0")],
        [(b"map", b"0,1,2")],
        [(b"map", b"")],
        [(b"map", b"0,x")],
    ):
        pax = extended(*((b"GNU.sparse." + key, value) for key, value in [(b"size", b"9"), *records]))
        with pytest.raises(DamagedArchiveError):
            unpacked(_YAML + pax + member(b"s", b"x") + END)


def test_a_count_of_pieces_that_lies() -> None:
    for count in (b"99999999999999999999\n", b"99999\n", b"-1\n", b"x\n", b"1" * 600):
        file = extended((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))
        with pytest.raises((DamagedArchiveError, TooBigError)):
            unpacked(_YAML + file + member(b"s", padded(count)) + END)


_TIMES = b"14524770542\0" * 2  # GNU tar has times where ustar has a prefix


@pytest.mark.parametrize(
    ("magic", "prefix", "name"),
    [
        (b"ustar\x0000", b"p", "p/n"),
        (b"ustar\0", b"p", "p/n"),
        (GNU, _TIMES, "n"),
        (GNU, b"p", "n"),  # by Go 1.7 and others
        (b"", b"p", "n"),
    ],
)
def test_a_prefix_only_where_ustar_says_so(magic: bytes, prefix: bytes, name: str) -> None:
    archive = _YAML + member(b"n", b"x", magic=magic, prefix=prefix) + END
    assert _contents(archive)[name] == b"x"
    assert judged(["tar"], archive)[1] == _contents(archive)


def test_headers_that_tools_read_in_two_ways() -> None:
    """Each header gives GNU tar one model and bsdtar another, or only one of them reads it."""
    for before in (
        long_name(b"one") + extended((b"path", b"two")),
        extended((b"path", b"one")) + extended((b"mtime", b"1")),
        extended((b"path", b"one"), kind=b"g"),
        extended((b"size", b"1"), kind=b"g"),
        member(b"x", b"15  path=name1\n", b"x"),
    ):
        with pytest.raises(DamagedArchiveError):
            unpacked(_YAML + before + member(b"n", b"x") + END)
    with pytest.raises(DamagedArchiveError):
        unpacked(_YAML + member(b"n", b"x", magic=b"ustar 00", prefix=b"p") + END)
    with pytest.raises(DamagedArchiveError):
        unpacked(_YAML + header(b"a/", 5) + padded(b"12345") + END)


@pytest.mark.parametrize(
    "content",
    [
        b"13 path=name",
        b"12 path=name\n",
        b"14 path=name\n",
        b"13 path=nam\n\n" + b"x",
        b"0 path=name\n",
        b"path=name\n",
        b"9 pathxx\n",
        b"4 =\n",
        b"13 path=name1",
        record(b"size", b"1e3"),
        record(b"size", b"-1"),
        record(b"size", b""),
        b"9" * 40 + b" path=x\n",
    ],
)
def test_records_of_pax_that_are_damaged(content: bytes) -> None:
    with pytest.raises(DamagedArchiveError, match="extended tar header"):
        unpacked(_YAML + member(b"x", content, b"x") + member(b"n", b"x") + END)


@pytest.mark.parametrize(
    ("field", "size"),
    [
        (b"3", 3),
        (b"          3 ", 3),
        (b"3\0garbage!!", 3),
        (b"\x80" + bytes(10) + b"\3", 3),
        (bytes(12), 0),
        (b" " * 12, 0),
    ],
)
def test_numbers_in_headers(field: bytes, size: int) -> None:
    content = padded(b"x" * size)
    archive = _YAML + header(b"n", fields={124: field.ljust(12, b"\0")}) + content + END
    assert _contents(archive)["n"] == b"x" * size


@pytest.mark.parametrize(
    "field", [b"3 3", b"+3", b"0x3", b"\0" + b"3", b"9", b"-", b"\x81" + bytes(11), b"3" * 11 + b"x"]
)
def test_numbers_that_are_none(field: bytes) -> None:
    with pytest.raises(DamagedArchiveError):
        unpacked(_YAML + header(b"n", fields={124: field.ljust(12, b"\0")}) + END)


def test_long_numbers_of_pax() -> None:
    archive = _YAML + extended((b"size", b"0" * 40 + b"3")) + header(b"n", 999) + padded(b"abc") + END
    assert judged(["tar"], archive) == judged(["bsdtar"], archive) == (True, _contents(archive))


def test_what_solaris_writes() -> None:
    """The type is 'X' for pax's 'x'. Access control lists come before their member."""
    acl = member(b"file", b"1000004\0user::rw-,group::r--,mask:r--,other:r--\0", b"A")
    archive = _YAML + acl + extended((b"path", b"long"), kind=b"X") + member(b"n", b"x") + END
    assert judged(["bsdtar"], archive) == (True, _contents(archive))
    assert set(_contents(archive)) == {"model.yaml", "long"}


def test_the_top_as_tarfile_names_it() -> None:
    """A directory without a name gets a slash."""
    for kind in (b"5", b"0", b"D"):
        assert _contents(header(b"/", kind=kind) + _YAML + END) == {"model.yaml": MODEL_YAML}
    with pytest.raises(UnsafeMemberError):
        unpacked(_YAML + header(b"/x/", kind=b"5") + END)


def test_a_file_whose_name_ends_like_a_folders() -> None:
    for magic in (b"ustar\x0000", GNU, b""):
        for kind in (b"0", b"\0", b"7"):
            archive = _YAML + member(b"sub/", kind=kind, magic=magic) + member(b"sub/x", b"x") + END
            assert _contents(archive) == {"model.yaml": MODEL_YAML, "sub": None, "sub/x": b"x"}
            assert judged(["tar"], archive) == judged(["bsdtar"], archive) == (True, _contents(archive))


def test_a_member_that_comes_twice(tmp_path: Path) -> None:
    """The last one is the model's, as in every tool."""
    for first, last in ((b"x", b"x"), (b"x", b"y"), (b"x" * 2_000_000, b"y"), (b"x", b"y" * 2_000_000)):
        archive = _YAML + member(b"w", first, mode=0o755) + member(b"v") + member(b"./w", last) + END
        staged = unpack(archive, tmp_path / "staged")
        assert look(staged.path)["w"] == (last, False)
        assert staged.files["w"].sha256 == run("sha256sum", f"{staged.path}/w").stdout.split()[0]
        assert judged(["tar"], archive) == judged(["bsdtar"], archive) == (True, _contents(archive))
        run("rm", "-r", str(tmp_path / "staged"))


@pytest.mark.parametrize("top", [b"", b"iris/"])
def test_a_model_yaml_that_comes_twice(top: bytes) -> None:
    """With different content, the last one must not decide which model this is."""
    yaml = member(top + b"model.yaml", MODEL_YAML)
    assert _contents(yaml + yaml + END) == {"model.yaml": MODEL_YAML}
    with pytest.raises(UnsafeMemberError, match="twice"):
        unpacked(yaml + member(top + b"model.yaml", MODEL_YAML.replace(b"v1", b"v2")) + END)
    with pytest.raises(BadModelError):
        unpacked(yaml + member(top + b"model.yaml", MODEL_YAML * 200_000) + END)


def test_a_hard_link_keeps_what_its_file_was() -> None:
    """A later file in the place of the link's target does not change the link."""
    link = header(b"l", kind=b"1", link=b"w")
    old, new = member(b"w", b"old"), member(b"w", b"new")
    for members, expected in ((old + link + new, b"old"), (old + link + new + old + link, b"old")):
        archive = _YAML + members + END
        assert _contents(archive)["l"] == expected
        assert judged(["tar"], archive) == judged(["bsdtar"], archive) == (True, _contents(archive))
    with pytest.raises(UnsafeMemberError, match="twice"):
        unpacked(_YAML + old + link + new + link + END)
    archive = _YAML + old + link + member(b"l", b"another") + END  # bsdtar writes this for a file given twice
    assert judged(["tar"], archive) == judged(["bsdtar"], archive) == (True, _contents(archive))
    assert _contents(_YAML + link + old + END)["l"] == b"old"
    chain = old + link + header(b"k", kind=b"1", link=b"l") + member(b"l", b"another") + new + END
    assert judged(["tar"], _YAML + chain) == (True, _contents(_YAML + chain))
    assert _contents(_YAML + chain)["k"] == b"old"
    with pytest.raises(UnsafeMemberError, match="twice"):
        unpacked(old + header(b"model.yaml", kind=b"1", link=b"w") + _YAML + END)


def test_links_that_come_twice() -> None:
    for kind in (b"1", b"2"):
        link = header(b"l", kind=kind, link=b"model.yaml")
        assert _contents(_YAML + link + link + END) == {"model.yaml": MODEL_YAML, "l": MODEL_YAML}
    with pytest.raises(UnsafeMemberError):
        unpacked(_YAML + header(b"l", kind=b"1", link=b"l") + END)


_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress}


@pytest.mark.parametrize("compress", _COMPRESSORS)
def test_the_end_of_a_compressed_tar(compress: str) -> None:
    """The end of the compressed stream shows that it is whole. It is checked, whatever comes before it."""
    whole = _YAML + member(b"w", b"x")
    garbage = os.urandom(100_000)
    for end in (b"", bytes(512), END, END + garbage, bytes(512) + garbage, END + bytes(17 << 20), END + whole):
        archive = _COMPRESSORS[compress](whole + end)
        assert _contents(archive) == {"model.yaml": MODEL_YAML, "w": b"x"}
        if end:
            with pytest.raises(DamagedArchiveError):
                unpacked(archive[:-1])
            with pytest.raises(DamagedArchiveError):
                unpacked(archive[:-5] + bytes([archive[-5] ^ 1]) + archive[-4:])
    for end in (whole[:100], bytes(511), b"x"):
        with pytest.raises(DamagedArchiveError):
            unpacked(_COMPRESSORS[compress](whole + end))
    with pytest.raises(DamagedArchiveError):
        unpacked(_COMPRESSORS[compress](whole[:-1]))


def test_the_end_of_a_plain_tar() -> None:
    whole = _YAML + member(b"w", b"x")
    for end in (bytes(512), END, END + b"rest" * 2000, END + whole, END + bytes(17 << 20)):
        with Trickling(whole + end, len(end), 9_000_000) as arriving:
            assert {path: content for path, (content, _) in unpacked(arriving).items()} == {
                "model.yaml": MODEL_YAML,
                "w": b"x",
            }
    for end in (b"", bytes(511), b"x" * 512, whole[:700]):
        with pytest.raises(DamagedArchiveError):
            unpacked(whole + end)


def test_a_plain_tar_that_has_lost_a_part_in_the_middle() -> None:
    """Zeros in place of members look like the end. Data so far behind it is not the rest of a record."""
    archive = _YAML + member(b"w", bytes(3 << 20)) + member(b"v", b"x") + END
    lost = archive[:1024] + bytes(3 << 20) + archive[1024 + (3 << 20) :]
    with pytest.raises(DamagedArchiveError, match="follows"):
        unpacked(lost)


def test_bytes_behind_the_end_expand_only_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.store.staging.limits._FREE_EXPANSION", 1 << 20)
    monkeypatch.setattr("bentofs.store.staging.limits._MAX_RATIO", 10)
    archive = gzip.compress(_YAML + END + bytes(40 << 20))
    with pytest.raises(TooBigError, match="expands"):
        unpacked(archive)
    folder = header(b"d", 40 << 20, b"D", magic=GNU) + bytes(40 << 20)
    with pytest.raises(TooBigError, match="expands"):
        unpacked(gzip.compress(_YAML + folder + END))


def test_one_of_several_volumes(tmp_path: Path) -> None:
    """A multi-volume archive of GNU tar is refused. Its second volume begins within a file."""
    (tmp_path / "model.yaml").write_bytes(MODEL_YAML)
    (tmp_path / "w").write_bytes(os.urandom(30_000))
    for form in ("gnu", "pax"):
        volumes = [tmp_path / f"{form}{number}" for number in range(4)]
        files = [f"--file={volume}" for volume in volumes]
        run("tar", f"--format={form}", "-M", "-L", "20", "-c", *files, "w", "model.yaml", cwd=tmp_path)
        assert volumes[1].exists()
        for volume in volumes[:2]:
            with pytest.raises((DamagedArchiveError, UnsafeMemberError), match=r"cut short|volumes"):
                unpacked(volume)
