"""The manifest of a model in a remote store. It keeps the metadata that objects lack: exec bits and empty directories.
It also keeps CRC-32s, so that they need no reading of the model.

It is JSON, in an object beside the version, `<name>/.<version>.bentofs.json`. BentoML looks at directories only, so it
ignores the file in a copy of the store. Listing a name finds it without another request. A note about a file is valid
only for the object with the same ETag. So a stale manifest does no harm.

    {"format": 1, "folders": ["<path>"],
     "files": {"<path>": {"etag": "...", "crc32": 123, "executable": true, "sha256": "..."}}}
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bentofs.store.errors import BadModelError

MAX_MANIFEST = 256 << 20  # bytes: of a model of a million files
_FORMAT = 1
_SUFFIX = ".bentofs.json"
_CLAIM_SUFFIX = ".bentofs-claim"
PROBE_SUFFIX = ".bentofs-probe"


class FileNote(NamedTuple):
    """The metadata of one file."""

    etag: str
    crc32: int | None
    executable: bool
    sha256: str  # hexadecimal; empty if not known


@dataclass
class Manifest:
    """The metadata of one model."""

    files: dict[str, FileNote] = field(default_factory=dict)  # by path in the model
    folders: list[str] = field(default_factory=list)  # all directories, or at least the empty ones

    def encode(self) -> bytes:
        """Return the JSON that is stored."""
        files = {
            path: {
                "etag": note.etag,
                "crc32": note.crc32,
                "executable": note.executable,
                "sha256": note.sha256,
            }
            for path, note in self.files.items()
        }
        return json.dumps({"format": _FORMAT, "files": files, "folders": self.folders}, sort_keys=True).encode()

    @classmethod
    def decode(cls, content: bytes) -> Manifest:
        """Parse the stored JSON. Raises BadModelError: it is no manifest, or one of a later version of bentofs."""
        try:
            told = json.loads(content)
            if told["format"] != _FORMAT:
                raise BadModelError(f"it is of format {told['format']}, which this version of bentofs does not know")
            files = {str(path): _note(note) for path, note in told["files"].items()}
            return cls(files, [_folder(path) for path in told["folders"]])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise BadModelError(f"it is not a manifest: {type(error).__name__}") from None


def manifest_key(name: str, version: str) -> str:
    """Return the key of a version's manifest, relative to the store."""
    return f"{name}/.{version}{_SUFFIX}"


def claim_key(name: str, version: str) -> str:
    """Return the key of the claim that the writer of a version holds (store/publishing/remote.py)."""
    return f"{name}/.{version}{_CLAIM_SUFFIX}"


def is_ours(name: str) -> bool:
    """True if a name, in the directory of a model's name or in the store, belongs to bentofs's own objects."""
    return name.startswith(".") and name.endswith((_SUFFIX, _CLAIM_SUFFIX, PROBE_SUFFIX))


def _folder(path: str) -> str:
    """Check the path of a directory in a model: anybody may have written the manifest. Raises ValueError, TypeError."""
    if "\0" in path or any(name in ("", ".", "..") for name in path.split("/")):
        raise ValueError("no path")
    path.encode("utf-8", "surrogateescape")  # raises for a lone surrogate that stands for no byte
    return path


def _note(told: dict[str, Any]) -> FileNote:
    crc32 = told["crc32"]
    if crc32 is not None and not (isinstance(crc32, int) and 0 <= crc32 < 1 << 32):
        raise ValueError("no CRC-32")
    return FileNote(str(told["etag"]), crc32, told["executable"] is True, str(told.get("sha256", "")))
