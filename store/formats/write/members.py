"""Members: what goes into an archive, whatever its format."""

from __future__ import annotations

import enum
import os
import stat
from typing import NamedTuple

from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write.chunks import Measured


class Packing(enum.Enum):
    """How a member goes into an archive that is compressed, unless its content was measured by itself."""

    STORED = "stored"
    SMALL = "small"  # compressed, with its neighbours where the format can


class Deflated(NamedTuple):
    """Content that is compressed in chunks of its own (`store.formats.write.deflate`)."""

    measured: Measured
    effort: int


class Member(NamedTuple):
    """One file or folder of an archive."""

    path: str  # as on this machine (`store.util.names`); no leading `./`, no trailing `/`
    is_folder: bool
    executable: bool
    content: Piece | None  # of a file that is not empty
    packing: Packing | Deflated = Packing.STORED  # only compressed formats heed it

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.content.length if self.content else 0

    @property
    def permissions(self) -> int:
        """0755 for folders and what its owner may execute, else 0644: the same on every machine."""
        return 0o755 if self.is_folder or self.executable else 0o644

    @property
    def mode(self) -> int:
        """As in `st_mode`."""
        return self.permissions | (stat.S_IFDIR if self.is_folder else stat.S_IFREG)

    @property
    def name(self) -> str:
        """The path as archives write it: `./` before one that begins like a Windows drive, such as `c:x`, without
        which BentoML 1.4.40 refuses the archive."""
        path = self.path
        return f"./{path}" if path[1:2] == ":" and path[0].isascii() and path[0].isalpha() else path

    @property
    def archive_path(self) -> bytes:
        """The name's bytes; folders end in `/`."""
        return os.fsencode(self.name) + (b"/" if self.is_folder else b"")
