"""Foreign: kinds of files that cannot hold a model, recognized by their first bytes and named for the user.

Magic bytes: 7-Zip's 7zFormat.txt, RAR 4 and 5, LZ4's and lzip's frames, xz-utils' .lzma, compress(1), cpio(5), ar(5),
ECMA-119 (ISO 9660), HDF5, GGUF, safetensors, pickle protocols 2 to 5.
"""

from __future__ import annotations

from bentofs.store.formats.read.cursor import Cursor

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x04\x22\x4d\x18", "compressed with lz4"),
    (b"LZIP", "compressed with lzip"),
    (b"\x5d\x00\x00", "compressed with lzma, the format before xz"),
    (b"\x1f\x9d", "compressed with compress"),
    (b"070701", "a cpio archive"),
    (b"070702", "a cpio archive"),
    (b"070707", "a cpio archive"),
    (b"!<arch>\n", "an ar archive, or a Debian package"),
    (b"\xed\xab\xee\xdb", "an RPM package"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x80\x02", "a pickle"),
    (b"\x80\x03", "a pickle"),
    (b"\x80\x04", "a pickle"),
    (b"\x80\x05", "a pickle"),
    (b"name: ", "a text, as model.yaml is"),
    (b"<!DOCTYPE", "a web page, as servers send instead of a missing file"),
    (b"<!doctype", "a web page, as servers send instead of a missing file"),
    (b"<html", "a web page, as servers send instead of a missing file"),
    (b"version https://git-lfs", "a pointer of Git LFS, which stands for the file: `git lfs pull` gets it"),
)
_ISO, _ISO_AT = b"CD001", 32 * 1024 + 1


def foreign_kind(head: bytes) -> str | None:
    """Return the kind of a file that begins with `head`, as a part of a sentence; None if it is unknown."""
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def is_disk_image(cursor: Cursor) -> bool:
    """Tell whether a file that begins with zeros, like an empty tar, is an ISO image."""
    start = cursor.position
    cursor.position = _ISO_AT
    found = cursor.exactly(len(_ISO))
    cursor.position = start
    return found == _ISO
