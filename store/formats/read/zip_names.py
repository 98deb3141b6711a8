"""Names of zip members: the bytes in a record become a path with `/` between names.

A name is UTF-8 if the archive says so (flag bit 11, or Info-ZIP's Unicode path field) or if its bytes are valid UTF-8.
Else the bytes are kept on Unix, and read as code page 437 elsewhere, like in Python's zipfile.
"""

from __future__ import annotations

import struct

from bentofs.store.formats.crc32 import crc32

_UTF8_NAME = 0x800
_UNICODE_PATH = 0x7075  # ID of the extra field
_DOUBLE_BYTE = ("cp932", "gbk", "big5", "cp950")  # a backslash may be the second byte of a character in these


def path_of(name: bytes, flags: int, extra: dict[int, bytes], *, is_unix: bool) -> str:
    """Return a member's name as a path. `is_unix`: the writer's system allows a backslash in a name.

    On other systems a backslash separates names (Windows PowerShell writes it so) if the name has no slash, and if the
    backslash is not the second byte of a character. UnZip reads such names in the same way.
    """
    path = _utf8_path(name, flags, extra)
    if path is not None:
        return path if is_unix or "/" in path else path.replace("\\", "/")
    if is_unix:
        return name.decode("utf-8", "surrogateescape")
    return (name if b"/" in name else _with_slashes(name)).decode("cp437")


def _utf8_path(name: bytes, flags: int, extra: dict[int, bytes]) -> str | None:
    field = extra.get(_UNICODE_PATH, b"")
    if not flags & _UTF8_NAME and len(field) > 5:
        version, checksum = struct.unpack_from("<BL", field)
        if version == 1 and checksum == crc32(name):
            try:
                return field[5:].decode("utf-8")
            except UnicodeDecodeError:
                pass
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _with_slashes(name: bytes) -> bytes:
    """Replace the backslashes that are whole characters, in every possible code page of the name."""
    changed = bytearray(name)
    places = {at for at, byte in enumerate(name) if byte == ord("\\")}
    for encoding in _DOUBLE_BYTE:
        places -= _second_bytes(name, encoding)
    for at in places:
        changed[at] = ord("/")
    return bytes(changed)


def _second_bytes(name: bytes, encoding: str) -> set[int]:
    """Return the offsets of the second bytes of characters; none if the name is not in this encoding."""
    try:
        characters = name.decode(encoding)
    except UnicodeDecodeError:
        return set()
    found: set[int] = set()
    at = 0
    for character in characters:
        length = len(character.encode(encoding))
        if length == 2:
            found.add(at + 1)
        at += length
    return found
