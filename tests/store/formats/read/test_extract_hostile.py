"""Malicious archives are refused: nothing is written outside the staging directory, and nothing is left in it."""

import bz2
import gzip
import io
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard

from bentofs.store.errors import BadModelError, DamagedArchiveError, StoreError, TooBigError, UnsafeMemberError
from bentofs.store.formats.read.growing_file import LITTLE_MEMORY, MOST_MEMORY, ArrivingFile
from bentofs.store.formats.write.xz_index import IndexSums
from bentofs.store.staging.limits import Limits
from tests.store.formats.unpacking import MODEL_YAML, Trickling, ours, tree_of, unpack, unpacked


def _tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


_YAML = _member("model.yaml", MODEL_YAML)


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return _member(name, type=kind, linkname=target)


def _zip(*members: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.yaml", MODEL_YAML)
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.create_system = 3
            archive.writestr(info, content)
    return file.getvalue()


_LONG = "/".join(["d" * 200] * 20)
_NAMES = [
    "/etc/passwd",
    "../outside",
    "a/../../outside",
    "a/..",
    "x" * 256,
    "\u00fc" * 128,
    _LONG,
    "/".join("d" * 120),
    "model.yaml/below-a-file",
    "model.yaml",
    "./model.yaml",
    ".//./model.yaml",
]


@pytest.mark.parametrize("name", _NAMES, ids=lambda name: name[:30])
@pytest.mark.parametrize("make", [lambda name: _tar(_YAML, _member(name, b"evil")), lambda name: _zip((name, b"evil"))])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names(tmp_path: Path, make: Callable[[str], bytes], name: str) -> None:
    with pytest.raises(UnsafeMemberError):
        unpack(make(name), tmp_path / "staged")


@pytest.mark.parametrize(
    "members",
    [
        [_link("link", "/etc/passwd")],
        [_link("link", "../../../../etc/passwd")],
        [_link("a/link", "../../x")],
        [_link("link", "..")],
        [_link("link", "nowhere")],
        [_link("link", "model.yaml/below")],
        [_link("link", "link")],
        [_link("one", "two"), _link("two", "one")],
        [_link("a/up", "..")],
        [_link("a/here", ".")],
        [_link("a/b", "../c"), _link("c/d", "../a")],
        [_link("link", "/etc/passwd", tarfile.LNKTYPE)],
        [_link("link", "../passwd", tarfile.LNKTYPE)],
        [_link("link", "nowhere", tarfile.LNKTYPE)],
        # Links through which a later member would be written.
        [_link("link", "/tmp"), _member("link/evil", b"evil")],
        [_link("link", "a"), _member("a/x"), _member("link/evil", b"evil")],
        [_link("link", "model.yaml"), _member("link", b"evil")],
        [_member("file", b"x"), _link("file", "model.yaml")],
        [_link("link", "model.yaml"), _link("link", "other")],
        [_link("link", "model.yaml"), _member("link", type=tarfile.DIRTYPE)],
        [_member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)],
        [_member("disk", type=tarfile.BLKTYPE, devmajor=8)],
        [_member("pipe", type=tarfile.FIFOTYPE)],
        [_member("odd", type=b"Z")],
        [_member("volume", type=b"M")],
        [_member("xattr", type=b"E")],
        [_member("a/b", b"x"), _member("a", b"x")],
        [_member("a", b"x"), _member("a/b", b"x")],
        [_member("a", b"x"), _member("a", type=tarfile.DIRTYPE)],
        [_member("a", type=tarfile.DIRTYPE), _member("a", b"x")],
        [_member("iris/model.yaml", b"x"), _member("iris/model.yaml", b"y")],
    ],
)
def test_members_of_tar(tmp_path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    for order in ([_YAML, *members], [*members, _YAML]):
        with pytest.raises(UnsafeMemberError):
            unpack(_tar(*order), tmp_path / "staged")


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../outside", b"nowhere", b"link"])
def test_links_of_zip(tmp_path: Path, target: bytes) -> None:
    with pytest.raises(UnsafeMemberError):
        unpack(_zip(("link", target), mode=0o120777), tmp_path / "staged")


@pytest.mark.parametrize("mode", [0o020666, 0o060666, 0o010666, 0o140666])
def test_devices_of_zip(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UnsafeMemberError):
        unpack(_zip(("device", b""), mode=mode), tmp_path / "staged")


def test_special_bits_are_dropped(tmp_path: Path) -> None:
    os.umask(os.umask(0o777))  # the process's umask must not matter
    for archive in (_tar(_YAML, _member("tool", b"x", mode=0o7777)), _zip(("tool", b"x"), mode=0o107777)):
        staged = unpack(archive, tmp_path / "staged")
        assert (os.stat(f"{staged.path}/tool").st_mode & 0o7777) == 0o755
        assert (os.stat(f"{staged.path}/model.yaml").st_mode & 0o7777) == 0o644
        subprocess.run(["rm", "-r", staged.path], check=True)


def test_links_multiply_only_so_far(tmp_path: Path) -> None:
    """Each directory holds ten links to the one before. All of them would make 10**9 files."""
    members = [_member("d0/file", b"x")]
    members += [_link(f"d{level}/{n}", f"../d{level - 1}") for level in range(1, 10) for n in range(10)]
    with pytest.raises(TooBigError, match="links"):
        unpack(_tar(_YAML, *members), tmp_path / "staged")


def test_links_lead_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand links lead to the first of a chain. Each link of the chain enters and leaves a directory as often as
    fits."""
    monkeypatch.setattr("bentofs.store.staging.links._MAX_STEPS", 20_000)
    chain = [_link(f"c{number}", "d/../" * 400 + f"c{number + 1}") for number in range(10)]
    members = [_member("d/file", b"x"), _member("c10", b"x"), *chain]
    with pytest.raises(TooBigError, match="links"):
        unpack(_tar(_YAML, *members, *[_link(f"l{number}", "c0") for number in range(100)]), tmp_path / "staged")


def test_words_of_links_take_only_so_much_memory(tmp_path: Path) -> None:
    """Ten thousand links are allowed, and names of thousands of characters. Both together are not."""
    folder = "/".join(["n" * 200] * 16)
    members = [_link(f"{folder}/{number}", "t" * 4000) for number in range(2000)]
    with pytest.raises(TooBigError, match="links"):
        unpack(_tar(_YAML, *members), tmp_path / "staged")


@pytest.mark.parametrize("form", ["tar", "zip", "tar.gz"])
def test_limits(tmp_path: Path, form: str) -> None:
    files: dict[str, bytes | None] = {"model.yaml": MODEL_YAML, **{f"f{n}/x": b"x" * 100 for n in range(20)}}
    archive = ours(form, files)
    expanded = sum(len(content or b"") for content in files.values())
    unpack(archive, tmp_path / "enough", Limits(members=41, expanded=expanded))
    with pytest.raises(TooBigError, match="--max-members"):
        unpack(archive, tmp_path / "staged", Limits(members=40))
    with pytest.raises(TooBigError, match="--max-expanded"):
        unpack(archive, tmp_path / "staged", Limits(expanded=expanded - 1))


def _with_size(archive: bytes, size: bytes) -> bytes:
    """Return the archive with another size in its last header, and a matching checksum."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        at = reader.getmembers()[-1].offset_data - 512
    header = bytearray(archive[at : at + 512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return archive[:at] + bytes(header) + archive[at + 512 :]


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" * 12,  # -1 in base 256
        b"\xff" * 10 + b"\xfe\x00",  # -512
        b"\x80" + b"\xff" * 11,
        b"\x80\x00\x00\x00\x7f" + b"\xff" * 7,
        b"77777777777\0",
        b"-0000000001\0",
        b"\0" * 11 + b"9",
        b"garbage!!!!!",
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_sizes_of_tar(tmp_path: Path, compress: Callable[[bytes], bytes], size: bytes) -> None:
    archive = _with_size(_tar(_YAML, _member("big", b"x" * 1000)), size)
    with pytest.raises((DamagedArchiveError, TooBigError)):
        unpack(compress(archive), tmp_path / "staged")


@pytest.mark.parametrize(
    "records",
    [
        {"size": "-1"},
        {"size": "99999999999999999999"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": "1000000000"},
        {"GNU.sparse.map": "0,1,1000000000,1", "GNU.sparse.size": "1000000001"},
        {"path": "../outside"},
        {"path": "/outside"},
        {"comment": "x" * 1_000_000},
        {"comment": "1" * 10_000},
    ],
    ids=str,
)
def test_pax_records(tmp_path: Path, records: dict[str, str]) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE):
        if kind == tarfile.XGLTYPE and "path" in records:
            continue  # tarfile and GNU tar apply it to one member only
        raw = b"".join(_record(key, value) for key, value in records.items())
        archive = _tar(_YAML, _member("x", raw, type=kind), _member("big", b"1000000\n" * 200))
        with pytest.raises(StoreError):
            unpack(archive, tmp_path / "staged")


def _record(key: str, value: str) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return f"{length} {key}={value}\n".encode()


def test_sparse_file_of_gnu_tar(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_bytes(MODEL_YAML)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    for form in ("gnu", "pax"):
        subprocess.run(
            ["tar", f"--format={form}", "--sparse", "-cf", "out.tar", "model.yaml", "sparse"], cwd=tmp_path, check=True
        )
        with pytest.raises(TooBigError, match="expands"):
            unpack(tmp_path / "out.tar", tmp_path / "staged")


def test_headers_that_go_on_and_on(tmp_path: Path) -> None:
    """Extended headers of extended headers; an endless long name; ever new global headers."""
    chain = _tar(*[_member("x", _record("comment", "x"), type=tarfile.XHDTYPE) for _ in range(2000)], _YAML)
    name = _tar(_member("././@LongLink", b"n" * 2_000_000, type=tarfile.GNUTYPE_LONGNAME), _YAML)
    many = [_member("x", _record(f"k{n}", "x" * 100), type=tarfile.XGLTYPE) for n in range(300)]
    for archive in (chain, name, _tar(*[part for one in many for part in (one, _member(f"f{one[1][:9]!r}"))], _YAML)):
        with pytest.raises(StoreError):
            unpack(archive, tmp_path / "staged")


def _overlapping_zip() -> bytes:
    """Return a zip with two names for one content. The zip bombs of David Fifield have thousands."""
    archive = _zip(("a", b"x" * 1000), ("b", b"y"))
    start = archive.index(b"PK\x01\x02")
    at_a = archive.index(b"PK\x01\x02", start + 1)
    record = archive[at_a : archive.index(b"PK\x01\x02", at_a + 1)]
    offset = archive.index(b"PK\x03\x04", 4)
    assert record.endswith(b"a")
    assert struct.unpack_from("<L", record, 42)[0] == offset
    return archive.replace(archive[archive.index(b"PK\x01\x02", at_a + 1) : archive.index(b"PK\x05\x06")], record)


def _edited_zip(field: int, form: str, value: int, *, central: bool, local: bool) -> bytes:
    """Change a number in the headers of the last member. `field` counts from the local header's start."""
    archive = bytearray(_zip(("data", b"d" * 1000)))
    if local:
        struct.pack_into(form, archive, archive.rindex(b"PK\x03\x04") + field, value)
    if central:
        struct.pack_into(form, archive, archive.rindex(b"PK\x01\x02") + field + 2, value)
    return bytes(archive)


@pytest.mark.parametrize(("central", "local"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("field", "form", "value"),
    [
        (14, "<L", 0xDEADBEEF),  # CRC-32
        (18, "<L", 5),  # compressed size
        (22, "<L", 5),  # size
        (22, "<L", 0xFFFFFFFE),
        (18, "<Q", 5 | 5 << 32),  # both
        (18, "<Q", 0xFFFFFFFFFFFFFFFF),  # both, but no zip64
        (8, "<H", 8),  # deflated, which is wrong
        (8, "<H", 99),  # an unknown method
        (26, "<H", 3),  # a shorter name
    ],
)
def test_zip_headers_that_lie(tmp_path: Path, field: int, form: str, value: int, central: bool, local: bool) -> None:
    with pytest.raises(StoreError):
        unpack(_edited_zip(field, form, value, central=central, local=local), tmp_path / "staged")


@pytest.mark.parametrize("offset", [0, 7, 0xFFFFFFFE])
def test_zip_directory_that_points_elsewhere(tmp_path: Path, offset: int) -> None:
    archive = bytearray(_zip(("data", b"d" * 1000)))
    struct.pack_into("<L", archive, archive.rindex(b"PK\x01\x02") + 42, offset)
    with pytest.raises(DamagedArchiveError):
        unpack(bytes(archive), tmp_path / "staged")


@pytest.mark.parametrize("position", [0, 1 << 31, (1 << 63) - 1, (1 << 64) - 1])
def test_zip64_records_that_point_elsewhere(tmp_path: Path, position: int) -> None:
    archive = _zip(("data", b"d" * 1000))
    end = archive.index(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, position, 1)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, position, position)
    for extra in (locator, end64 + locator):
        with pytest.raises(DamagedArchiveError):
            unpack(archive[:end] + extra + archive[end:], tmp_path / "staged")


def test_zip_members_that_overlap(tmp_path: Path) -> None:
    with pytest.raises(DamagedArchiveError):
        unpack(_overlapping_zip(), tmp_path / "staged")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_members_that_the_directory_does_not_list(tmp_path: Path) -> None:
    """Members left by zip -d or an update are not part of the archive."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("model.yaml", b"name: another\nversion: v9\ncreation_time: 2020-01-01T00:00:00Z\n")
        archive.writestr("left-out", b"x")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("model.yaml", MODEL_YAML)
        archive.filelist = archive.filelist[-1:]
    staged = unpack(tmp_path / "a.zip", tmp_path / "staged")
    assert os.listdir(staged.path) == ["model.yaml"]
    assert str(staged.info.tag) == "iris:v1"


_ALIASES = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 9)) for n in range(ord("b"), ord("k"))
)
_TIME = b"creation_time: '2026-01-02T03:04:05+00:00'\n"


@pytest.mark.parametrize(
    "content",
    [
        _ALIASES + MODEL_YAML,
        MODEL_YAML + b"evil: !!python/object/apply:os.system ['touch /tmp/pwned']\n",
        MODEL_YAML + b"# " + b"x" * (17 << 20),
        b"[" * 100_000,
        b"",
        b"\xff\xfe",
        b"name: Iris\nversion: v1\n" + _TIME,
        b'name: "iris\\n"\nversion: v1\n' + _TIME,
        b'name: iris\nversion: "v1\\n"\n' + _TIME,
        b"name: ../iris\nversion: v1\n" + _TIME,
        b"name: iris\nversion: ..\n" + _TIME,
        b"name: iris\n" + _TIME,
        b"name: iris\nversion: v1\n",
        b"name: iris\nversion: " + b"v" * 64 + b"\n" + _TIME,
        b"name: [iris]\nversion: {a: b}\n" + _TIME,
    ],
    ids=lambda content: f"{len(content)}-{content[:20]!r}",
)
@pytest.mark.parametrize("top", ["", "top/"])
def test_model_yaml(tmp_path: Path, content: bytes, top: str) -> None:
    for form in ("bentomodel", "zip", "tar"):
        with pytest.raises(BadModelError):
            unpack(ours(form, {f"{top}model.yaml": content}), tmp_path / "staged")


def test_model_yaml_of_100_mb_is_refused_early(tmp_path: Path) -> None:
    class Fails:
        """A file that must not be read beyond 20 MiB."""

        def read_into(self, view: memoryview, offset: int) -> int:
            assert offset < 20 << 20
            info = tarfile.TarInfo("model.yaml")
            info.size = 100_000_000
            head = info.tobuf()
            view[:] = (head[offset : offset + len(view)] if offset < 512 else b"").ljust(len(view), b"#")
            return len(view)

        def length(self) -> int:
            raise AssertionError

        def fileno(self) -> int:
            return zeros

    zeros = os.memfd_create("zeros")
    try:
        os.ftruncate(zeros, 100_000_512)
        with pytest.raises(BadModelError, match="larger than"):
            unpack(cast("ArrivingFile", Fails()), tmp_path / "staged")
    finally:
        os.close(zeros)


_COMPRESSORS: dict[str, Callable[[], Any]] = {
    "xz": lambda: lzma.LZMACompressor(preset=0),
    "gzip": lambda: zlib.compressobj(9, zlib.DEFLATED, 31),
    "bzip2": lambda: bz2.BZ2Compressor(9),
    "zstd": lambda: zstandard.ZstdCompressor(level=3).compressobj(),
}
_UNPACK = r"""
import os, re, sys
from bentofs.store.formats.read.growing_file import WholeFile
from bentofs.store.formats.read.extract import extract
from bentofs.store.errors import StoreError
from bentofs.store.staging.model import Limits, StagedModel

descriptor = os.open(sys.argv[1], os.O_RDONLY)
model = StagedModel(sys.argv[2], Limits(members=int(sys.argv[3]), expanded=int(sys.argv[4])))
try:
    extract(WholeFile(descriptor), model)
    model.finish()
    print("came in", end=" ")
except StoreError as error:
    print(type(error).__name__, end=" ")
model.discard()
print(int(re.search(r"VmHWM:\s*(\d+) kB", open("/proc/self/status").read())[1]) >> 10)
"""


def _outcome(archive: Path, *, members: int = 1_000_000, expanded: int = 1 << 40) -> str:
    """Unpack an archive in a process. Return its outcome, and check that it took less than 120 MiB."""
    staged = archive.parent / "staged"
    done = subprocess.run(
        [sys.executable, "-c", _UNPACK, archive, staged, str(members), str(expanded)],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    outcome, _, peak = done.stdout.strip().rpartition(" ")
    assert not done.stderr
    assert int(peak) < 120, f"{outcome}: {peak} MiB"
    assert not staged.exists()
    return outcome


@pytest.mark.parametrize("name", _COMPRESSORS)
def test_bombs(tmp_path: Path, name: str) -> None:
    """300 MB of zeros in a file are refused at a limit of 100 MB, in bounded memory."""
    compressor = _COMPRESSORS[name]()
    info = tarfile.TarInfo("zeros")
    info.size = 300 << 20
    with (tmp_path / "bomb").open("wb") as file:
        file.write(compressor.compress(_tar(_YAML)[:1024] + info.tobuf()))
        for _ in range(300):
            file.write(compressor.compress(bytes(1 << 20)))
        file.write(compressor.flush())
    assert _outcome(tmp_path / "bomb", expanded=100 << 20) == "TooBigError"


def test_an_expansion_no_model_has(tmp_path: Path) -> None:
    """The expansion is within the limits, but larger than any honest archive of this size."""
    block = bz2.compress(bytes(40 << 20), 9)  # 46 bytes per MiB
    info = tarfile.TarInfo("zeros")
    info.size = 40 * (40 << 20)
    with (tmp_path / "bomb").open("wb") as file:
        file.write(bz2.compress(_tar(_YAML)[:1024] + info.tobuf()))
        for _ in range(40):
            file.write(block)
        file.write(bz2.compress(bytes(10240)))
    assert _outcome(tmp_path / "bomb") == "TooBigError"


@pytest.mark.parametrize(("mib", "outcome"), [(64, "came in"), (128, "TooBigError")])
def test_dictionaries_of_xz(tmp_path: Path, mib: int, outcome: str) -> None:
    """`xz -9` takes 64 MiB. All of it is really used here."""
    content = ours("tar", {"model.yaml": MODEL_YAML, "x.bin": bytes(70 << 20)})
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": mib << 20}]
    (tmp_path / "x").write_bytes(lzma.compress(content, filters=filters))
    assert _outcome(tmp_path / "x") == outcome


def test_a_later_block_of_xz_with_a_larger_dictionary() -> None:
    """The memory for the first block does not suffice for the second. All is read once more."""
    files: dict[str, bytes | None] = {"model.yaml": MODEL_YAML, "x.bin": os.urandom(500_000)}
    content = ours("tar", files)
    stream, records = b"", []
    for part, mib in ((content[:300_000], 1), (content[300_000:], 32)):
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": mib << 20}]
        alone = lzma.compress(part, check=lzma.CHECK_CRC32, filters=filters)
        index = len(alone) - 12 - 4 * (1 + int.from_bytes(alone[-8:-4], "little"))
        stream += alone[12 if stream else 0 : index]
        records.append(alone[index + 2 : -16].rstrip(b"\0"))
    sums = IndexSums()
    for record in records:
        sums.add(record)
    head, end = sums.ends()
    stream += head + b"".join(records) + end
    assert lzma.decompress(stream) == content
    with Trickling(stream, 1) as arriving:
        assert unpacked(arriving) == tree_of(files)
    assert arriving.memory == [LITTLE_MEMORY, MOST_MEMORY]


def test_windows_of_zstd(tmp_path: Path) -> None:
    content = ours("tar", {"model.yaml": MODEL_YAML, "x.bin": os.urandom(70 << 20)})
    for log, outcome in ((26, "came in"), (27, "TooBigError")):
        parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=log)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        (tmp_path / "x").write_bytes(compressor.compress(content) + compressor.flush())
        assert _outcome(tmp_path / "x") == outcome
    with pytest.raises(TooBigError, match=r"zstd window of 128 MiB.*--long=26 at most"):
        unpacked(tmp_path / "x")


@pytest.mark.parametrize("form", ["tar.gz", "zip"])
def test_many_tiny_members(tmp_path: Path, form: str) -> None:
    """More members than allowed, each as small as possible."""
    with (tmp_path / "many").open("wb") as file:
        if form == "zip":
            with zipfile.ZipFile(file, "w") as archive:
                for number in range(12_000):
                    archive.writestr(f"{number}", b"")
        else:
            with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
                for number in range(12_000):
                    packed.write(tarfile.TarInfo(f"{number}").tobuf())
                packed.write(bytes(10240))
    assert _outcome(tmp_path / "many", members=10_000) == "TooBigError"
