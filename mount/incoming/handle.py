"""Handle: one open file of `incoming/`, as a program has it.

Knows no FUSE. Threading: see `UploadHandles`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bentofs.mount.incoming.append_place import AppendPlace
from bentofs.mount.incoming.spool_names import SpoolNames
from bentofs.mount.incoming.upload import Upload
from bentofs.store.errors import InUseError


@dataclass
class Handle:
    """One open file. A handle on an imported name has no upload until something is written."""

    path: str
    uid: int
    upload: Upload | None
    appends: AppendPlace | None = None  # if opened with O_APPEND
    may_write: bool = True
    reads_back: int | None = None  # receipt of the import under this name, if its bytes are still there
    wrote: bool = False
    is_dirty: bool = False  # has written since anybody last closed it
    is_overtaken: bool = False  # has written, and then another handle has
    turn: int = -1  # the number of its last write, counted over all files and before its bytes are written
    last_change: int = -1  # the number of its last change to the upload
    mixed: InUseError | None = None  # somebody else wrote to the same file meanwhile

    def attach(self, names: SpoolNames, upload: Upload) -> None:
        """Open an upload through this handle."""
        self.upload = upload
        names.hold(upload)

    def pieces(self, upload: Upload, view: memoryview, offset: int) -> Iterable[tuple[memoryview, int]]:
        """Return what to write for a write at the kernel's offset, with its offset in the file."""
        if self.appends is None:
            return [(view, offset)]
        return self.appends.pieces(upload.file.fileno(), view, offset, is_short=upload.mark.is_short)
