"""The yardstick: the plainest read-only pass-through that fusepy allows, on libfuse's own threads.

    python pass_through.py SOURCE MOUNTPOINT

Nothing in here may be made clever: it shows the speed that fusepy gives a file system that only hands bytes on.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

import fuse

STAT_FIELDS = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_atime", "st_mtime", "st_ctime", "st_blocks")


class PassThrough(fuse.Operations):  # type: ignore[misc]
    """Shows the files below one folder unchanged."""

    def __init__(self, source: str) -> None:
        self.source = source

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # noqa: ARG002 (fusepy's signature)
        found = os.lstat(self.source + path)
        return {field: getattr(found, field) for field in STAT_FIELDS}

    def readdir(self, path: str, fh: int) -> Iterator[str]:  # noqa: ARG002
        yield from (".", "..", *os.listdir(self.source + path))

    def readlink(self, path: str) -> str:
        return os.readlink(self.source + path)

    def open(self, path: str, flags: int) -> int:
        return os.open(self.source + path, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> None:  # noqa: ARG002
        os.close(fh)


if __name__ == "__main__":
    fuse.FUSE(PassThrough(os.path.abspath(sys.argv[1])), sys.argv[2], foreground=True, big_writes=True)
