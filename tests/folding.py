"""A file system that takes two names for the same one if they differ only by case or Unicode form, like ext4's casefold
and vfat. `folding.py FOLDER MOUNTPOINT` shows a folder so, in the foreground."""

import os
import sys
import unicodedata
from typing import Any

import fuse


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class Folding(fuse.Operations):
    """A folder behind names that fold."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def _real(self, path: str) -> str:
        real = self._folder
        for name in path.strip("/").split("/"):
            known = os.listdir(real) if os.path.isdir(real) else []
            real = os.path.join(real, next((entry for entry in known if _folded(entry) == _folded(name)), name))
        return real

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # noqa: ARG002
        look = os.lstat(self._real(path))
        return {name: getattr(look, name) for name in dir(look) if name.startswith("st_") and name[3:] != "birthtime"}

    def readdir(self, path: str, fh: int) -> list[str]:  # noqa: ARG002
        return [".", "..", *os.listdir(self._real(path))]

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._real(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._real(path))

    def unlink(self, path: str) -> None:
        os.unlink(self._real(path))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._real(path), mode)

    def create(self, path: str, mode: int, fi: object = None) -> int:  # noqa: ARG002
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._real(path), flags & ~os.O_NOFOLLOW)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:  # noqa: ARG002
        return os.pwrite(fh, data, offset)

    def fsync(self, path: str, datasync: int, fh: int) -> None:  # noqa: ARG002
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:  # noqa: ARG002
        os.close(fh)


if __name__ == "__main__":
    fuse.FUSE(Folding(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True)
