"""A disk that gets stuck: `slow_disk.py FOLDER MOUNTPOINT GATE` shows FOLDER at MOUNTPOINT. A read of a file with
`stuck` in its name waits while the file GATE exists. For tests; a plain fusepy pass-through otherwise."""

import os
import sys
import time

import fuse

STUCK = 64  # stuck files in the stores of tests


class SlowDisk(fuse.Operations):  # fusepy has no types
    """A read-only pass-through."""

    use_ns = True

    def __init__(self, root: str, gate: str) -> None:
        self._root = root
        self._gate = gate

    def getattr(self, path: str, _fh: int | None = None) -> dict[str, int]:
        look = os.lstat(self._root + path)
        names = ("st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size")
        times = {"st_mtime": look.st_mtime_ns, "st_ctime": look.st_ctime_ns, "st_atime": look.st_atime_ns}
        return {name: int(getattr(look, name)) for name in names} | times

    def readdir(self, path: str, _fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._root + path)]

    def open(self, path: str, flags: int) -> int:
        return os.open(self._root + path, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        while "stuck" in os.path.basename(path) and os.path.exists(self._gate):
            time.sleep(0.02)  # between two looks
        return os.pread(fh, size, offset)

    def release(self, _path: str, fh: int) -> None:
        os.close(fh)


if __name__ == "__main__":
    fuse.FUSE(
        SlowDisk(sys.argv[1], sys.argv[3]), sys.argv[2], foreground=True, use_ino=True, max_background=500, ro=True
    )
