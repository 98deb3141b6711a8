"""Files of SHA-256 sums, as sha256sum of the GNU coreutils writes and checks them: `<digest>  <name>` a line."""

from __future__ import annotations

import os
import re

SUFFIX = ".sha256"  # of the file that lies beside the one it is of
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_ESCAPE = re.compile(r"\\([\\nr])")
_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r"}
MAX_SUMS = 1 << 20  # bytes of such a file that are read


def write_sums(digest: str, name: str) -> bytes:
    """The content of a file of sums of one file. Names with a backslash or a line break are escaped."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != name else ""
    return os.fsencode(f"{mark}{digest}  {escaped}\n")


def read_sums(content: bytes, alone: str) -> dict[str, str]:
    """The digests in a file of sums, by name without its folders; `alone`: whose a digest without a name is."""
    sums = {}
    for line in content.decode(errors="surrogateescape").split("\n"):
        is_escaped = line.startswith("\\")
        digest, name = line.removeprefix("\\")[:64], line.removeprefix("\\")[64:].removesuffix("\r")
        if not _DIGEST.fullmatch(digest):
            continue
        name = name[2:] if name.startswith(("  ", " *")) else name.strip()
        if is_escaped:
            name = _ESCAPE.sub(lambda match: _ESCAPES[match[1]], name)
        sums[os.path.basename(name) or alone] = digest.lower()
    return sums
