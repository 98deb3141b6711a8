"""A model comes out the same, whatever packed it: real tools, Python's modules, and this project's own archives."""

import bz2
import functools
import gc
import gzip
import io
import lzma
import os
import random
import subprocess
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.errors import NotAModelError
from bentofs.store.formats.read.detect import kind_of
from bentofs.store.formats.read.extract import extract
from bentofs.store.formats.read.growing_file import WholeFile
from bentofs.store.formats.write.registry import FORMATS
from bentofs.store.staging.model import StagedModel
from bentofs.store.util.buffer_pool import BufferPool
from tests.harness import run
from tests.store.formats.unpacking import (
    LONG,
    MODEL_YAML,
    PLAIN,
    Tree,
    Trickling,
    Unseekable,
    ours,
    tree_of,
    unpacked,
    whole_file,
    write_files,
)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("long") / "iris", LONG)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("plain") / "iris", PLAIN)


def _packed(folder: Path, command: str) -> bytes:
    """Run a shell command in the model's directory, and return its output: in "$OUT", or on stdout."""
    out = folder.parent / "out"
    out.unlink(missing_ok=True)
    done = run("bash", "-euc", command, cwd=folder, env={**os.environ, "OUT": str(out), "LC_ALL": "C.UTF-8"})
    assert not done.stderr, done.stderr
    try:
        return out.read_bytes()
    finally:
        out.unlink()


_BOTH = ["tar -cf $OUT -C . .", "tar -cf $OUT *", "tar -cf $OUT -C .. iris", "tar -cf $OUT -C .. ./iris"]


@pytest.mark.parametrize(
    "command",
    [
        *_BOTH,
        "tar --format=gnu -cf $OUT .",
        "tar --format=pax -cf $OUT .",
        "tar --format=oldgnu -b 1 -cf $OUT .",
        "tar -cf - . | xz -1 > $OUT",
        "tar -cf - . | xz -9e > $OUT",
        "tar -cf - . | xz -0 -T2 --block-size=65536 > $OUT",
        "tar -cf - . > $OUT; (head -c 50000 $OUT | xz; head -c 8 /dev/zero; tail -c +50001 $OUT | xz -C none) > $OUT.2;"
        " mv $OUT.2 $OUT",
        "tar -cf - . | gzip > $OUT",
        "tar -cf - . | pigz -p2 -b128 > $OUT",
        "tar -cf - . > $OUT; (head -c 50000 $OUT | gzip; tail -c +50001 $OUT | gzip; head -c 9999 /dev/zero) > $OUT.2;"
        " mv $OUT.2 $OUT",
        "tar -cf - . | bzip2 > $OUT",
        "tar -cf - . > $OUT; (head -c 50000 $OUT | bzip2 -1; tail -c +50001 $OUT | bzip2) > $OUT.2; mv $OUT.2 $OUT",
        "tar -cf - . | zstd -q > $OUT",
        "tar -cf - . | zstd -q -19 --long=26 > $OUT",
        "tar -cf - . | zstd -q -T2 --no-check > $OUT",
        "tar -cf - . > $OUT; (head -c 50000 $OUT | zstd -q; printf '\\x5a\\x2a\\x4d\\x18\\x03\\0\\0\\0abc';"
        " tail -c +50001 $OUT | zstd -q) > $OUT.2; mv $OUT.2 $OUT",
        "bsdtar --format pax -cf $OUT .",
        "bsdtar --format gnutar -cf $OUT *",
        "bsdtar --format zip -cf $OUT .",
        "bsdtar --format zip -cf - . | cat > $OUT",
        "bsdtar --format zip --options zip:compression=store -cf - . | cat > $OUT",
        "zip -q -r $OUT.zip . && mv $OUT.zip $OUT",
        "zip -q -0 -r $OUT.zip * && mv $OUT.zip $OUT",
        "zip -q -r - . | cat > $OUT",
        "zip -q -0 -r - . | cat > $OUT",
        "zip -q -Z bzip2 -r $OUT.zip . && mv $OUT.zip $OUT",
        "zip -q -r -fz- $OUT.zip . && echo comment | zip -q -z $OUT.zip && mv $OUT.zip $OUT",
        "zip -q -r -fz $OUT.zip . && mv $OUT.zip $OUT",
        "cd .. && zip -q -r $OUT.zip iris && mv $OUT.zip $OUT",
        "7z a -tzip $OUT.zip . > $OUT && mv $OUT.zip $OUT",
        "7z a -tzip -mm=LZMA $OUT.zip . > $OUT && mv $OUT.zip $OUT",
        "7z a -tzip -mm=BZip2 $OUT.zip . > $OUT && mv $OUT.zip $OUT",
    ],
)
def test_real_tools(long: Path, command: str) -> None:
    assert unpacked(_packed(long, command)) == tree_of(LONG)


@pytest.mark.parametrize(
    "command",
    [
        "tar --format=ustar -cf $OUT .",
        "tar --format=v7 -cf $OUT .",
        "tar --format=v7 -cf - * | gzip > $OUT",
        "bsdtar --format ustar -cf $OUT .",
        "bsdtar --format v7tar -cf $OUT .",
    ],
)
def test_old_formats_of_tar(plain: Path, command: str) -> None:
    """Old formats have no long names."""
    assert unpacked(_packed(plain, command)) == tree_of(PLAIN)


def _python_tar(folder: Path, form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        archive.add(folder, ".")
    return buffer.getvalue()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_python_tarfile(long: Path, form: int) -> None:
    tar = _python_tar(long, form)
    for compress in (bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress):
        assert unpacked(compress(tar)) == tree_of(LONG), compress


def _python_zip(folder: Path, method: int, *, streams: bool) -> bytes:
    file: io.BytesIO | Unseekable = Unseekable() if streams else io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return bytes(file.content) if isinstance(file, Unseekable) else file.getvalue()


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_python_zipfile(long: Path, method: int, streams: bool) -> None:
    archive = _python_zip(long, method, streams=streams)
    assert unpacked(archive) == tree_of(LONG)
    with Trickling(archive, seed=method) as arriving:
        assert unpacked(arriving) == tree_of(LONG)
        # Only the central directory, at the end, has the length of stored content of unknown length.
        assert arriving.asked_for_length == (streams and method == zipfile.ZIP_STORED)


def test_zip_of_powershell() -> None:
    """Windows PowerShell 5.1 writes backslashes between names."""
    files: dict[str, bytes | None] = {"model.yaml": MODEL_YAML, "nested/deep/leaf": b"x" * 1000, "nested/void/": None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            info = zipfile.ZipInfo(path.replace("/", "\\"))
            info.create_system = 0
            archive.writestr(info, content or b"")
    assert unpacked(buffer.getvalue()) == tree_of(files)


@pytest.mark.parametrize("form", [name for name, kind in FORMATS.items() if kind.lay_out])
def test_our_own(form: str) -> None:
    archive = ours(form, LONG)
    assert unpacked(archive) == tree_of(LONG)
    for seed in range(3):
        with Trickling(archive, seed) as arriving:
            assert unpacked(arriving) == tree_of(LONG)
            assert not arriving.asked_for_length, "it could not be unpacked as it came"


@functools.cache
def _some_archives() -> dict[str, bytes]:
    tar = ours("tar", PLAIN)
    return {
        "gz": gzip.compress(tar),
        "bz2": bz2.compress(tar, 1),
        "xz": lzma.compress(tar),
        "zst": zstandard.ZstdCompressor(write_checksum=True).compress(tar),
        "tar": tar,
    }


@pytest.mark.parametrize("name", ["gz", "bz2", "xz", "zst", "tar"])
def test_bytes_that_trickle_in(name: str) -> None:
    archive = _some_archives()[name]
    for seed, longest in enumerate((40_000, 1_000, 100_000)):
        with Trickling(archive, seed, longest) as arriving:
            assert unpacked(arriving) == tree_of(PLAIN)


@given(
    flags=st.integers(0, 15).map(lambda bits: bits << 1),
    length=st.one_of(st.integers(0, 20), st.sampled_from([4094, 9000])),
    step=st.sampled_from([1, 11, 4096, 1 << 20]),
)
def test_headers_of_gzip_with_all_that_they_may_have(flags: int, length: int, step: int) -> None:
    """gzip headers with all optional fields are read, however the bytes arrive."""
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    if flags & 4:
        header += length.to_bytes(2, "little") + bytes(length)
    for field in (8, 16):
        if flags & field:
            header += b"n" * length + b"\0"
    if flags & 2:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    files: dict[str, bytes | None] = {"model.yaml": MODEL_YAML}
    content = ours("tar", files)
    plain = gzip.compress(content[:1000], 1)[10:], gzip.compress(content[1000:], 1)[10:]
    archive = header + plain[0] + header + plain[1]
    assert gzip.decompress(archive) == content
    with tempfile.TemporaryFile() as file:
        file.write(archive)
        file.flush()
        assert unpacked(_Stepping(file.fileno(), step)) == tree_of(files)


class _Stepping(WholeFile):
    """A file that returns at most this many bytes per read."""

    def __init__(self, descriptor: int, step: int) -> None:
        super().__init__(descriptor)
        self._step = step

    def read_into(self, view: memoryview, offset: int) -> int:
        return super().read_into(view[: self._step], offset)


def test_large_content_that_trickles_in() -> None:
    """The content is large enough to be copied from file to file."""
    files = {**PLAIN, "large.bin": random.Random(1).randbytes(5_000_001)}
    for form in ("tar", "zip"):
        with Trickling(ours(form, files), 1, 700_000) as arriving:
            assert unpacked(arriving) == tree_of(files)


def test_links_become_copies(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "iris", PLAIN)
    (folder / "to-file").symlink_to("nested/deep/leaf.txt")
    (folder / "nested" / "to-folder").symlink_to("../names")
    (folder / "a-chain").symlink_to("nested/to-folder/.hidden")
    (folder / "second-name").hardlink_to(folder / "weights.bin")
    expected: Tree = {
        **tree_of(PLAIN),
        "to-file": (b"leaf", False),
        "a-chain": (b"dot", False),
        "second-name": (PLAIN["weights.bin"], False),
        "nested/to-folder": (None, True),
    }
    for path, found in tree_of(PLAIN).items():
        if path.startswith("names/"):
            expected["nested/to-folder/" + path.removeprefix("names/")] = found
    for command in (
        "tar -cf $OUT .",
        "tar -cf - -C .. iris | gzip > $OUT",
        "bsdtar -cf $OUT .",
        "zip -q -y -r $OUT.zip . && mv $OUT.zip $OUT",
    ):
        assert unpacked(_packed(folder, command)) == expected, command


@pytest.mark.parametrize(
    "make",
    [
        lambda _: b"",
        lambda _: b"not an archive at all\n" * 100,
        lambda _: gzip.compress(b"hello" * 1000),
        lambda _: lzma.compress(ours("zip", PLAIN)),
        lambda folder: _packed(folder, "zip -q -e -P secret -r $OUT.zip . && mv $OUT.zip $OUT"),
        lambda folder: _packed(folder, "7z a -tzip -psecret -mem=AES256 $OUT.zip . > $OUT && mv $OUT.zip $OUT"),
        lambda folder: _packed(folder, "7z a -tzip -mm=Deflate64 $OUT.zip . > $OUT && mv $OUT.zip $OUT"),
        lambda folder: _packed(folder, "7z a -t7z $OUT.7z . > $OUT && mv $OUT.7z $OUT"),
        lambda folder: _packed(folder, "cd nested && tar -cf $OUT deep"),
        lambda folder: _packed(folder, "tar -cf $OUT nested run.sh"),
        lambda _: bytes(10240),
        lambda _: b"PK\x05\x06" + bytes(18),
        lambda _: ours("tar", {"bento.yaml": b"service: x\n", "src/x.py": b""}),
    ],
)  # fmt: skip
def test_what_is_no_model_gets_a_sentence(plain: Path, make: Callable[[Path], bytes]) -> None:
    with pytest.raises(NotAModelError, match=r"^(the|this) "):
        unpacked(make(plain))


def test_a_bento_is_told_apart() -> None:
    with pytest.raises(NotAModelError, match="Bento, not a model"):
        unpacked(ours("bentomodel", {"iris/bento.yaml": b"service: x\n"}))


def test_kinds_by_their_first_bytes() -> None:
    for name, archive in _some_archives().items():
        wanted = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd", "tar": "tar"}[name]
        assert kind_of(archive[:512]).value == wanted


def test_every_tool_is_there() -> None:
    """Otherwise the tests above would fail for another reason than they state."""
    for tool in ("tar", "bsdtar", "zip", "7z", "xz", "zstd", "pigz", "pixz", "bzip2"):
        subprocess.run(["sh", "-c", f"command -v {tool}"], check=True, stdout=subprocess.DEVNULL)


def test_what_a_mac_packs_beside_the_folder_is_left_out() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in PLAIN.items():
            if content is not None:
                archive.writestr(f"iris/{path}", content)
        archive.writestr("__MACOSX/iris/._model.yaml", b"\0\5\26\7")
    files: dict[str, bytes | None] = {path: content for path, content in PLAIN.items() if content is not None}
    assert set(unpacked(packed.getvalue())) >= set(tree_of(files))
    assert not any("MACOSX" in path for path in unpacked(packed.getvalue()))


@pytest.mark.parametrize("form", ["bentomodel", "tar", "tar.xz", "zip"])
def test_a_staged_model_keeps_no_buffer_of_its_archive(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers go at once, not when garbage is collected: a daemon collects it seldom, and imports many models."""
    taken: list[weakref.ref[object]] = []
    take = BufferPool.take

    def note(pool: BufferPool) -> memoryview:
        view = take(pool)
        taken.append(weakref.ref(view.obj))
        return view

    monkeypatch.setattr(BufferPool, "take", note)
    model = StagedModel(str(tmp_path / "staged"))
    gc.disable()
    try:
        with whole_file(ours(form, LONG)) as arriving:
            extract(arriving, model)
        model.finish()
        assert [ref for ref in taken if ref() is not None] == []
    finally:
        gc.enable()
        model.discard()
    assert taken
