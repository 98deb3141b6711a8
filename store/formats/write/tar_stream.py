"""TarStream: a tar that is read once, from start to end. Each member is made when its turn comes.

Small files are read together, as many as a read wants.

Threading: one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bentofs.store.formats.pieces import Literal, Piece, Views, Zeros
from bentofs.store.formats.write.members import Member, Shape, read_contents, shapes_of
from bentofs.store.formats.write.tar import end_length, header_of, padding_length

_WHOLE = 64 << 10  # bytes at most of a file that is read as a whole, even if its end is wanted later


class TarStream:
    """A piece: the tar of some members, as `store.formats.write.tar.lay_out_tar` lays it out.

    Laying out all members takes longer than reading them, if they are small. No read may begin before the end of the
    one before it. What lies between two reads is skipped.
    """

    def __init__(self, members: Sequence[Member], mtime: int, length: int) -> None:
        """`length`: of the whole tar."""
        self.length = length
        self._members = members
        self._mtime = mtime
        self._shapes = enumerate(shapes_of(members))
        self._taken = 0  # end of the members that were taken from `_shapes`
        self._begun: deque[tuple[int, Piece]] = deque()  # starts and pieces of a member that a read has begun

    def read_into(self, views: Views, offset: int) -> None:
        """Do what `Piece.read_into` does."""
        for view in views:
            self._fill(view, offset)
            offset += len(view)

    def _fill(self, view: memoryview, start: int) -> None:
        stop = start + len(view)
        self._go_on(view, start)
        wanted: list[tuple[int, memoryview]] = []
        shapes, mtime, at = self._shapes, self._mtime, self._taken
        while at < stop:
            number, shape = next(shapes, (None, None))
            if number is None or shape is None:
                self._begun.append((at, Zeros(end_length(at))))
                at = self.length
                self._go_on(view, start)
                break
            size, head = shape[3], header_of(shape, mtime)
            content = at + len(head)
            end = content + size
            following = end + padding_length(size)
            if at >= start and following <= stop and size <= _WHOLE:  # the usual case: all is wanted
                view[at - start : content - start] = head
                if size:
                    wanted.append((number, view[content - start : end - start]))
                    view[end - start : following - start] = bytes(following - end)
            elif following > start:
                self._begun.append((at, Literal(head)))
                if size:
                    is_wanted = content < stop and end > start
                    self._begun.append((content, self._content(number, shape, is_wanted=is_wanted)))
                    self._begun.append((end, Zeros(following - end)))
                self._go_on(view, start)
            at = following
        self._taken = at
        read_contents(self._members, wanted)

    def _content(self, number: int, shape: Shape, *, is_wanted: bool) -> Piece:
        """Return the content of a member. A file that is cut by a read is read once, if it is small."""
        size = shape[3]
        if is_wanted and size <= _WHOLE:
            whole = bytearray(size)
            read_contents(self._members, [(number, memoryview(whole))])
            return Literal(bytes(whole))
        content = self._members[number].content
        return Zeros(0) if content is None else content

    def _go_on(self, view: memoryview, start: int) -> None:
        """Fill a view as far as the members that were begun reach, and drop those that end before its end."""
        stop = start + len(view)
        while self._begun:
            place, piece = self._begun[0]
            end = place + piece.length
            first, last = max(place, start), min(end, stop)
            if first < last:
                piece.read_into([view[first - start : last - start]], first - place)
            if end > stop:
                return
            self._begun.popleft()
