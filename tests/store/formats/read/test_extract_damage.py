"""A truncated or changed archive is refused, or gives the model it always gave: never another."""

import bz2
import functools
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.errors import DamagedArchiveError, NotAModelError, StoreError
from tests.store.formats.unpacking import MODEL_YAML, Tree, Trickling, ours, tree_of, unpacked

_FILES = {
    "model.yaml": MODEL_YAML,
    "a folder/": None,
    "b.bin": bytes(range(256)) * 20,
    "deep/er/c": b"c" * 600,
    "deep/er/\u00fc" + "d" * 120: b"d",
    "e.sh": b"",
}


def _zip(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for path, content in _FILES.items():
            archive.writestr(path, content or b"")
    return file.getvalue()


def _streamed_zip() -> bytes:
    """Return a deflated zip with sizes in descriptors."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    file = Pipe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in _FILES.items():
            archive.writestr(path, content or b"")
    return file.getvalue()


_ZSTD = zstandard.ZstdCompressor(write_checksum=True)
# Archives in which a checksum covers every byte, or the byte makes no difference.
_CHECKED: dict[str, Callable[[], bytes]] = {
    "bentomodel": lambda: ours("bentomodel", _FILES),
    "tar.gz": lambda: ours("tar.gz", _FILES),
    "gzip": lambda: gzip.compress(ours("tar", _FILES)),
    "two gzips": lambda: gzip.compress(ours("tar", _FILES)[:3000]) + gzip.compress(ours("tar", _FILES)[3000:]),
    "xz": lambda: lzma.compress(ours("tar", _FILES)),
    "bzip2": lambda: bz2.compress(ours("tar", _FILES)),
    "zstd": lambda: _ZSTD.compress(ours("tar", _FILES)),
    "zip": lambda: ours("zip", _FILES),
    "deflated zip": lambda: _zip(zipfile.ZIP_DEFLATED),
    "streamed zip": _streamed_zip,
    "bzip2 zip": lambda: _zip(zipfile.ZIP_BZIP2),
    "lzma zip": lambda: _zip(zipfile.ZIP_LZMA),
}


@functools.cache
def _archive(name: str) -> bytes:
    return ours("tar", _FILES) if name == "tar" else _CHECKED[name]()


@functools.cache
def _original(name: str) -> Tree:
    """Return the original's content without execute permissions: zip has no checksum over them."""
    tree = unpacked(_archive(name))
    assert _content(tree) == _content(tree_of(_FILES))
    return tree


def _content(tree: Tree) -> dict[str, bytes | None]:
    return {path: content for path, (content, _) in tree.items()}


def _refused_or_the_same(name: str, archive: bytes) -> None:
    original = _original(name)
    try:
        found = unpacked(archive)
    except StoreError:
        return
    if "zip" in name:
        assert _content(found) == _content(original)
    else:
        assert found == original


@pytest.mark.parametrize("name", _CHECKED)
@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_byte(name: str, data: st.DataObject) -> None:
    archive = bytearray(_archive(name))
    at = data.draw(st.integers(0, len(archive) - 1) | st.integers(max(0, len(archive) - 600), len(archive) - 1))
    archive[at] ^= data.draw(st.integers(1, 255))
    _refused_or_the_same(name, bytes(archive))


@pytest.mark.parametrize("name", [*_CHECKED, "tar"])
@settings(max_examples=40)
@given(data=st.data())
def test_a_cut(name: str, data: st.DataObject) -> None:
    archive = _archive(name)
    at = data.draw(st.integers(0, len(archive) - 1) | st.integers(max(0, len(archive) - 100), len(archive) - 1))
    _refused_or_the_same(name, archive[:at])


@pytest.mark.parametrize(
    "name", ["bentomodel", "tar.gz", "gzip", "xz", "zstd", "bzip2", "zip", "streamed zip", "lzma zip"]
)
@settings(max_examples=25)
@given(data=st.data())
def test_bytes_left_out_or_put_in(name: str, data: st.DataObject) -> None:
    archive = _archive(name)
    at, to = sorted(data.draw(st.tuples(*[st.integers(0, len(archive))] * 2)))
    _refused_or_the_same(name, archive[:at] + data.draw(st.binary(max_size=20)) + archive[to:])


@settings(max_examples=100)
@given(data=st.data())
def test_a_changed_byte_in_a_header_of_tar(data: st.DataObject) -> None:
    """tar has a checksum over each header, but not over names in extended headers or over content."""
    archive = bytearray(_archive("tar"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        headers = [member.offset_data - 512 for member in reader]
    archive[data.draw(st.sampled_from(headers)) + data.draw(st.integers(0, 511))] ^= data.draw(st.integers(1, 255))
    _refused_or_the_same("tar", bytes(archive))


@pytest.mark.parametrize("name", [*_CHECKED, "tar"])
def test_cut_at_every_boundary(name: str) -> None:
    """Compressed streams are cut at the last bytes; tar and zip at every header."""
    archive = _archive(name)
    cuts = {len(archive) - at for at in range(1, 40)}
    for signature in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"):
        at = -1
        while (at := archive.find(signature, at + 1)) >= 0:
            cuts |= {at, at + 2, at + 4, at + 29, at + 30}
    if name == "tar":
        ended = len(archive.rstrip(b"\0")) // 512 * 512 + 512
        cuts = set(range(512, ended + 512, 512)) | {511, ended + 511}
    for cut in sorted(cut for cut in cuts if cut < len(archive)):
        with pytest.raises((DamagedArchiveError, NotAModelError)) as caught:
            unpacked(archive[:cut])
        assert cut < 600 or isinstance(caught.value, DamagedArchiveError), cut
    if name == "tar":
        for blocks in (1, 2):
            assert unpacked(archive[: ended + 512 * blocks]) == _original("tar"), "a block of zeros is an end"


@pytest.mark.parametrize("name", _CHECKED)
def test_garbage_behind_the_end(name: str) -> None:
    little = (
        [] if name.endswith("zip") and name != "gzip" else [b"x", b"\0" * 511 + b"x"]
    )  # a zip may have a little behind its end, see test_zip.py
    for garbage in (*little, _archive(name)[:20], b"\xff" * 70_000):
        with pytest.raises(DamagedArchiveError):
            unpacked(_archive(name) + garbage)


@pytest.mark.parametrize("name", ["bentomodel", "zip", "tar", "gzip"])
def test_cut_while_it_arrives(name: str) -> None:
    archive = _archive(name)
    for cut in (1, 100, len(archive) // 2, len(archive) - 1):
        with Trickling(archive[:cut], cut) as arriving:
            _refused_or_the_same(name, archive[:cut])
            try:
                assert unpacked(arriving) == _original(name)
            except StoreError:
                pass


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("name", ["gzip", "tar.gz"])
@pytest.mark.parametrize("at", [-8, -5, -4, -1])
def test_trailer_of_gzip(name: str, at: int) -> None:
    archive = _archive(name)
    with pytest.raises(DamagedArchiveError):
        unpacked(_flipped(archive, len(archive) + at))


def test_padding_of_xz_is_a_multiple_of_four() -> None:
    archive = _archive("xz")
    assert unpacked(archive + bytes(8)) == _original("xz")
    for count in (1, 2, 3, 5):
        with pytest.raises(DamagedArchiveError):
            unpacked(archive + bytes(count))
        with pytest.raises(DamagedArchiveError):
            unpacked(archive + bytes(count) + archive)


def test_zip_content_that_lies() -> None:
    """A wrong CRC-32 is found both by an immediate check and by a later one in the digester."""
    for size in (1_000, 3_000_000):
        files: dict[str, bytes | None] = {"model.yaml": MODEL_YAML, "z.bin": bytes(size)}
        archive = bytearray(ours("zip", files))
        archive[archive.index(bytes(900)) + 450] ^= 1
        with pytest.raises(DamagedArchiveError, match="CRC-32"):
            unpacked(bytes(archive))
