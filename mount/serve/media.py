"""Media types of the files of a tree, and how browsers may treat them.

Models are untrusted. So none of their files is given a type that a browser runs or draws in a page of its own: text is
text, images are images, all else is a file to save.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote

# A file of the tree is never active content, whatever its type is.
OF_FILES = {
    "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "bentofs",
}
_ARCHIVES = {
    ".zip": "application/zip",
    ".tar": "application/x-tar",
    ".gz": "application/gzip",
    ".bentomodel": "application/gzip",
    ".zst": "application/zstd",
    ".xz": "application/x-xz",
}
IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp"}
TEXTS = {
    *(".txt", ".md", ".rst", ".yaml", ".yml", ".json", ".jsonl", ".toml", ".ini", ".cfg", ".csv", ".tsv"),
    *(".py", ".sh", ".log", ".sha256", ".error", ".html", ".htm", ".xhtml", ".svg", ".xml", ".js", ".css", ".ipynb"),
}
_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_TOKEN = re.compile(r"[A-Za-z0-9._+@=, -]+")


def media_type(name: str, *, is_models: bool) -> tuple[str, str]:
    """Return the Content-Type and the Content-Disposition of a file. `is_models`: it is a file of a model."""
    suffix = posixpath.splitext(name)[1].lower()
    is_text = suffix in TEXTS if suffix else not is_models
    kind = _ARCHIVES.get(suffix) or IMAGES.get(suffix) or (_TEXT if is_text else _BYTES)
    return kind, disposition("inline" if kind == _TEXT else "attachment", name)


def disposition(how: str, name: str) -> str:
    """Return a Content-Disposition for a file of this name (RFC 6266)."""
    if _TOKEN.fullmatch(name):
        return f'{how}; filename="{name}"'
    plain = "".join(char if _TOKEN.fullmatch(char) else "_" for char in name)
    return f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(name.encode('utf-8', 'surrogateescape'), safe='')}"
