"""Files of SHA-256 sums: written like sha256sum's, read in every common tool's format.

The reader accepts lines of sha256sum (`<digest>  <name>`), lines of the BSDs and `--tag` (`SHA256 (<name>) =
<digest>`), tables, lists and CSV of PowerShell's Get-FileHash, certutil's report, and a digest alone. Digests may be
hexadecimal or base64. The text may be UTF-8 or UTF-16, with or without a byte order mark, with line ends of Unix or
Windows. Names may have directories, separated by `/` or `\\`.
"""

from __future__ import annotations

import base64
import codecs
import errno
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from bentofs.store.errors import DamagedArchiveError
from bentofs.store.util.display import printable

ALL_SUMS = "SHA256SUMS"  # usual name of a file with the sums of many files
SUFFIX = ".sha256"  # of a file of sums beside the file that it describes
MAX_SUMS = 1 << 20  # bytes read of a file of sums
NO_SUMS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)  # errors of opening a missing file of sums

_HEX = r"[0-9a-fA-F]{64}"
_DIGEST = rf"(?:{_HEX}(?![0-9a-zA-Z])|[0-9a-zA-Z+/]{{43}}=(?!=))"
_TAGGED = re.compile(rf"SHA2?-?256 ?\((.*)\) ?= ?({_DIGEST})\s*", re.DOTALL | re.IGNORECASE)
_PLAIN = re.compile(rf"({_DIGEST})(.*)", re.DOTALL)
_TABLE = re.compile(rf"SHA256\s+({_HEX})(\s.*)?", re.IGNORECASE)
_CSV = re.compile(rf'"?SHA256"?[,;\t]"?({_HEX})"?[,;\t](.*)', re.IGNORECASE)
_LISTED = re.compile(rf"Hash\s*:\s*({_HEX})\s*", re.IGNORECASE)
_LISTED_NAME = re.compile(r"Path\s*:(.*)", re.IGNORECASE)
_IN_PAIRS = re.compile(r"\s*(?:[0-9a-fA-F]{2} ){31}[0-9a-fA-F]{2}\s*")  # certutil before Windows 8
_ANYWHERE = re.compile(rf"(?<![0-9a-zA-Z]){_HEX}(?![0-9a-zA-Z])")
_PERHAPS = re.compile(r"(?<![0-9a-zA-Z])[0-9a-fA-F]{20,}(?![0-9a-zA-Z])")  # another kind of digest, or a part of one
_SHORTENED = ("...", "\u2026")  # the end of a path that was cut in a wide table
_ESCAPE = re.compile(r"\\([\\nr])")
_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}
_MARKS = (  # the longer ones first: UTF-32-LE's begins with UTF-16-LE's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    (codecs.BOM_UTF8, "utf-8"),
)
_LOOKED_AT = 64  # bytes that show UTF-16 without a mark


class Sums(NamedTuple):
    """The content of a file of sums. Digests are hexadecimal, in lower case."""

    by_path: dict[str, str]  # also by name without directories, if only one digest has that name
    nameless: frozenset[str]  # digests without a name, or with a part of one
    is_unreadable: bool  # it seems to hold a digest, but no SHA-256 can be read

    def beside(self, name: str) -> frozenset[str]:
        """Return the digests that the file `name` may have, if this is `name.sha256`; none if it states none."""
        if name in self.by_path:
            return frozenset([self.by_path[name]])
        if self.nameless:
            return self.nameless
        stated = frozenset(self.by_path.values())
        return stated if len(stated) == 1 else frozenset()  # one file under another name, or other files


class _Line(NamedTuple):
    digest: str
    name: str
    is_exact: bool  # every character of the name stands for itself


def write_sums(digest: str, name: str) -> bytes:
    """Return the content of a file of sums for one file; `name`: a portable name (`store.util.names`).

    A name with a backslash or a line break is escaped."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return f"{mark}{digest}  {escaped}\n".encode("utf-8", "surrogateescape")


def read_sums(content: bytes) -> Sums:
    """Read a file of sums. Lines without a digest are ignored."""
    text = _decode(content)
    if text.lstrip().startswith("<"):  # a page that a server sends instead of "not found"
        return Sums({}, frozenset(), False)
    by_path: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    nameless: set[str] = set()
    for line in _read_lines(text):
        paths = _paths(line)
        if not paths:
            nameless.add(line.digest)
        for path in paths:
            by_path[path] = line.digest
            names.setdefault(os.path.basename(path), set()).add(line.digest)
    by_name = {name: digests.pop() for name, digests in names.items() if len(digests) == 1}
    if not by_path and not nameless:
        nameless.update(digest.lower() for digest in _ANYWHERE.findall(text))
    is_answer = text.lstrip().startswith(("{", "["))  # of an API: there is no such file
    is_unreadable = not by_path and not nameless and not is_answer and _PERHAPS.search(text) is not None
    return Sums({**by_name, **by_path}, frozenset(nameless), is_unreadable)


def read_sums_beside(content: bytes, name: str) -> frozenset[str]:
    """Return the SHA-256s that `name.sha256` allows for the file `name`; none if it states none.

    Raises:
        DamagedArchiveError: it holds a checksum, but no SHA-256 can be read.
    """
    sums = read_sums(content)
    if sums.is_unreadable:
        raise DamagedArchiveError(
            f"{printable(name + SUFFIX)} beside it names a checksum that cannot be read as a SHA-256: mend or remove it"
        )
    return sums.beside(name)


def _decode(content: bytes) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return _decode_as(content[len(mark) :], encoding)
    even, odd = any(content[:_LOOKED_AT:2]), any(content[1:_LOOKED_AT:2])
    if len(content) >= _LOOKED_AT and even != odd:
        return _decode_as(content, "utf-16-le" if even else "utf-16-be")
    return _decode_as(content, "utf-8")


def _decode_as(content: bytes, encoding: str) -> str:
    return content.decode(encoding, "surrogateescape" if encoding == "utf-8" else "replace")


def _read_lines(text: str) -> Iterator[_Line]:
    waiting: str | None = None  # a digest in a list; the next line has its name
    is_zero = "\0" in text  # sha256sum --zero: names are not escaped
    for line in text.split("\0" if is_zero else "\n"):
        if waiting is not None:
            name = _LISTED_NAME.fullmatch(line)
            yield _Line(waiting, name[1].strip() if name else "", False)
            waiting = None
        if (listed := _LISTED.fullmatch(line)) is not None:
            waiting = listed[1].lower()
        elif (found := _read_line(line)) is not None:
            yield found._replace(is_exact=found.is_exact or is_zero)
    if waiting is not None:
        yield _Line(waiting, "", False)


def _read_line(line: str) -> _Line | None:
    is_escaped = line.startswith("\\")
    rest = line.removeprefix("\\")
    if (tagged := _TAGGED.fullmatch(rest)) is not None:
        name, digest = tagged.groups()
    elif (plain := _PLAIN.fullmatch(rest)) is not None:
        digest, name = plain[1], plain[2].removesuffix("\r")
        name = name[2:] if name.startswith(("  ", " *")) else name.strip()
    elif (table := _TABLE.fullmatch(line) or _CSV.fullmatch(line)) is not None:
        digest, name = table[1], (table[2] or "").strip()
        name = "" if name.endswith(_SHORTENED) else name
    elif _IN_PAIRS.fullmatch(line) is not None:
        digest, name = "".join(line.split()), ""
    else:
        return None
    if is_escaped:
        name = _ESCAPE.sub(lambda match: _ESCAPES[match[1]], name)
    if digest.endswith("="):
        digest = base64.b64decode(digest).hex()
    return _Line(digest.lower(), name, is_escaped)


def _paths(line: _Line) -> list[str]:
    """Return the paths that a line may mean: Windows separates names by backslashes, and scripts quote names."""
    names = [line.name] if line.is_exact else [line.name, line.name.strip('"').replace("\\", "/")]
    return [os.path.normpath(name) for name in dict.fromkeys(names) if name]
