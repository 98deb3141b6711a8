"""The error for a file without a model names the kind of the file."""

import io
import os
import pickle
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from bentofs.store.errors import NotAModelError
from bentofs.store.formats.read.foreign import foreign_kind
from tests.store.formats.unpacking import unpacked


def _iso() -> bytes:
    """Return an ISO image's first volume descriptor, behind the 16 sectors reserved for other uses (ECMA-119, 8.4)."""
    return bytes(16 * 2048) + b"\x01CD001\x01\x00".ljust(2048, b"\0") + b"\xffCD001\x01".ljust(2048, b"\0")


def _empty_tar() -> bytes:
    file = io.BytesIO()
    tarfile.open(fileobj=file, mode="w").close()
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (_iso(), "this is an ISO image"),
        (_empty_tar(), "the archive holds no model: it begins with zeros"),
        (bytes(40_000) + b"CD001", "the archive holds no model: it begins with zeros"),
        (pickle.dumps(["model"]), "this is a pickle"),
        (struct.pack("<Q", 20) + b'{"w":{"dtype":"F32"}' + bytes(80), "this is a safetensors file"),
        (b"<!DOCTYPE html><title>404 Not Found</title>", "this is a web page"),
        (b"name: iris\nversion: v1\n", "this is a text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "this is a pointer of Git LFS"),
        (os.urandom(3) + b"anything" * 100, "this is an unknown kind of file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_archive(content: bytes, sentence: str) -> None:
    with pytest.raises(NotAModelError) as raised:
        unpacked(content)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("7z a -bd $0.7z file >&2; cat $0.7z", "a 7z archive"),
        ("xz --format=lzma -c file", "compressed with lzma, the format before xz"),
        ("bsdtar -c --lz4 -f - file", "compressed with lz4"),
        ("bsdtar -c --lzip -f - file", "compressed with lzip"),
        ("bsdtar -c --compress -f - file", "compressed with compress"),
        ("bsdtar -c --format newc -f - file", "a cpio archive"),
        ("bsdtar -c --format odc -f - file", "a cpio archive"),
        ("bsdtar -c --format ar -f - file", "an ar archive, or a Debian package"),
    ],
)
def test_what_real_tools_write(tmp_path: Path, command: str, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"content" * 1000)
    done = subprocess.run(
        ["sh", "-ec", command, "out"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    assert foreign_kind(done.stdout[:512]) == kind


def test_an_iso_image_of_a_real_tool(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_bytes(b"name: iris")
    made = tmp_path / "m.iso"
    subprocess.run(["bsdtar", "-c", "--format", "iso9660", "-f", made, "model.yaml"], cwd=tmp_path, check=True)
    with pytest.raises(NotAModelError, match=r"^this is an ISO image"):
        unpacked(made)
