"""Content for archives under test: pieces that need no disk, and a file object on top of a piece."""

import array
import io
import zlib
from collections.abc import Sequence

from bentofs.store.formats.pieces import Piece, PieceList, read_bytes
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.registry import Format


class Memory:
    """A piece of bytes in memory, which counts the bytes read."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.length = len(content)
        self.bytes_read = 0

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            part = self.content[offset : offset + len(view)]
            assert len(part) == len(view), "asked for bytes beyond the piece's end"
            view[:] = part
            offset += len(view)
            self.bytes_read += len(view)

    def crc32(self) -> int:
        return zlib.crc32(self.content)

    def learn_ahead(self, _count: int) -> bool:
        return False


class Numbered:
    """A piece of any length, without stored bytes. Each eight bytes hold, little-endian, the number of eights before
    them."""

    def __init__(self, length: int, crc: int = 0x12345678) -> None:
        self.length = length
        self.crc = crc
        self.bytes_read = 0

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        for view in views:
            assert 0 <= offset <= offset + len(view) <= self.length, "asked for bytes beyond the piece's end"
            view[:] = numbers(offset, len(view))
            offset += len(view)
            self.bytes_read += len(view)

    def crc32(self) -> int:
        """Return a wrong CRC-32: no test can read 100 GiB."""
        return self.crc

    def learn_ahead(self, _count: int) -> bool:
        return False


class Unfilled:
    """A piece of any length whose bytes are never used: it leaves the buffers unchanged."""

    def __init__(self, length: int) -> None:
        self.length = length

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        assert 0 <= offset <= offset + sum(map(len, views)) <= self.length, "asked for bytes beyond the piece's end"

    def crc32(self) -> int:
        return 0

    def learn_ahead(self, _count: int) -> bool:
        return False


def numbers(offset: int, size: int) -> bytes:
    """Return the bytes of a `Numbered` at [offset, offset + size)."""
    first = offset // 8
    eights = array.array("Q", range(first, (offset + size + 7) // 8)).tobytes()
    return eights[offset - 8 * first : offset - 8 * first + size]


class PieceFile(io.RawIOBase):
    """A piece as a seekable file, for readers such as tarfile and zipfile. It counts the bytes it returned."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece
        self._position = 0
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {0: 0, 1: self._position, 2: self._piece.length}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = max(0, min(len(view), self._piece.length - self._position))
        if count:
            self._piece.read_into([view[:count]], self._position)
        self._position += count
        self.bytes_read += count
        return count


def whole(piece: Piece) -> bytes:
    return read_bytes(piece, 0, piece.length)


def laid_out_as(kind: Format, members: Sequence[Member], mtime: int) -> PieceList:
    """Lay out members in a format that is not compressed."""
    assert kind.lay_out is not None, f"{kind.name} is always compressed"
    return kind.lay_out(members, mtime)
