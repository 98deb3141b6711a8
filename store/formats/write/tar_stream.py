"""TarStream: a tar that is read once, from start to end. Each member is made when its turn comes.

Threading: one thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bentofs.store.formats.pieces import Literal, Piece, Views, Zeros
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.tar import end_length, header, padding_length


class TarStream:
    """A piece: the tar of some members, as `store.formats.write.tar.lay_out_tar` lays it out.

    Laying out all members takes longer than reading them, if they are small. No read may begin before the end of the
    one before it. What lies between two reads is skipped.
    """

    def __init__(self, members: Sequence[Member], mtime: int, length: int) -> None:
        """`length`: of the whole tar."""
        self.length = length
        self._pieces = _pieces(members, mtime)
        self._piece: Piece = Zeros(0)
        self._start = 0  # of this piece

    def read_into(self, views: Views, offset: int) -> None:
        """Do what `Piece.read_into` does."""
        for view in views:
            done, size = 0, len(view)
            while done < size:
                piece = self._piece
                within = offset + done - self._start
                count = min(piece.length - within, size - done)
                if count > 0:
                    piece.read_into([view[done : done + count]], within)
                    done += count
                else:
                    self._start += piece.length
                    self._piece = next(self._pieces)
            offset += size


def _pieces(members: Sequence[Member], mtime: int) -> Iterator[Piece]:
    length = 0
    for member in members:
        head = header(member, mtime)
        padding = padding_length(member.size)
        length += len(head) + member.size + padding
        yield Literal(head)
        if member.content is not None:
            yield member.content
            yield Zeros(padding)
    yield Zeros(end_length(length))
