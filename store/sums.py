"""Files of SHA-256 sums, as sha256sum of the GNU coreutils writes and checks them: `<digest>  <name>` a line, or with
`--tag`, and by the BSDs, `SHA256 (<name>) = <digest>`."""

from __future__ import annotations

import os
import re

SUFFIX = ".sha256"  # of the file that lies beside the one it is of
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_TAGGED = re.compile(r"SHA2?-?256 ?\((.*)\) ?= ?([0-9a-fA-F]{64})\r?", re.DOTALL)
_ESCAPE = re.compile(r"\\([\\nr])")
_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}
MAX_SUMS = 1 << 20  # bytes of such a file that are read


def write_sums(digest: str, name: str) -> bytes:
    """The content of a file of sums of one file. Names with a backslash or a line break are escaped."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return os.fsencode(f"{mark}{digest}  {escaped}\n")


def read_sums(content: bytes, alone: str) -> dict[str, str]:
    """The digests in a file of sums, by path, and by name without folders where that says which one is meant; `alone`:
    whose a digest without a name is."""
    sums: dict[str, str] = {}
    names: dict[str, set[str]] = {}
    text = content.decode(errors="surrogateescape")
    for line in text.split("\0" if "\0" in text else "\n"):  # with --zero, names are as they are
        is_escaped = line.startswith("\\")
        tagged = _TAGGED.fullmatch(line.removeprefix("\\"))
        if tagged is not None:
            name, digest = tagged.groups()
        else:
            digest, name = line.removeprefix("\\")[:64], line.removeprefix("\\")[64:].removesuffix("\r")
            if not _DIGEST.fullmatch(digest):
                continue
            name = name[2:] if name.startswith(("  ", " *")) else name.strip()
        if is_escaped:
            name = _ESCAPE.sub(lambda match: _ESCAPES[match[1]], name)
        path = os.path.normpath(name) if name else alone
        sums[path] = digest.lower()
        names.setdefault(os.path.basename(path), set()).add(sums[path])
    return {**{name: digests.pop() for name, digests in names.items() if len(digests) == 1}, **sums}
