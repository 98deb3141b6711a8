"""Frames: content interleaved with headers at fixed places, as in xz's uncompressed chunks and deflate's stored blocks.

All frames of an archive have the same layout. So a request depends only on its start in a frame and on its length, and
a few dozen plans serve every request. One scattered read fills a plan's content in between the headers.
"""

from __future__ import annotations

import operator
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bentofs.store.formats.crc32 import BlockChecksums
from bentofs.store.formats.pieces import Piece, Views

_PARTS_KEPT = 8192  # parts of all plans of a template that serves a whole archive: about 1 MB


class Template:
    """The layout of one frame, built from start to end."""

    def __init__(self, parts_kept: int = _PARTS_KEPT) -> None:
        """`parts_kept`: of all plans, for the next request."""
        self._literals: list[tuple[int, bytes]] = []  # place in the frame, bytes
        self._spans: list[tuple[int, int, int]] = []  # place in the frame, place in its content, length
        self._checksum: int | None = None
        self._plans: dict[tuple[int, int], _Plan] = {}
        self._most_parts = parts_kept
        self._repeated = (0, 0, 1, 0)  # start, end, period, and the period in the content
        self._parts_kept = 0
        self.length = 0
        self.content_length = 0

    def add_literal(self, content: bytes) -> None:
        self._literals.append((self.length, content))
        self.length += len(content)

    def add_content(self, length: int) -> None:
        """Add the next `length` bytes of content."""
        self._spans.append((self.length, self.content_length, length))
        self.length += length
        self.content_length += length

    def add_checksum(self) -> None:
        """Add the CRC-32 of the frame's content, little-endian."""
        self._checksum = self.length
        self.length += 4

    def repeat(self, start: int, end: int, period: int, content_period: int) -> None:
        """Declare that the layout in [start, end) repeats itself, so that one plan serves several places."""
        self._repeated = (start, end, period, content_period)

    def place(self, start: int, size: int) -> tuple[_Plan, int]:
        """Return the plan for the bytes [start, start + size) of a frame, and how much further on in the content they
        are. Call it only once the template is built."""
        first, end, period, content_period = self._repeated
        if start < first + period or start + size > end:
            return self.plan(start, size), 0
        times = (start - first) // period
        return self.plan(start - times * period, size), times * content_period

    def plan(self, start: int, size: int) -> _Plan:
        """Return the plan for the bytes [start, start + size) of a frame. Call it only once the template is built."""
        plan = self._plans.get((start, size))
        if plan is None:
            plan = self._make_plan(start, size)
            parts = 1 + len(plan.literals) + len(plan.spans)
            if self._parts_kept + parts > self._most_parts:
                self._plans.clear()
                self._parts_kept = 0
            self._plans[start, size] = plan
            self._parts_kept += parts
        return plan

    def _make_plan(self, start: int, size: int) -> _Plan:
        end = start + size
        literals: list[tuple[int, int, bytes]] = []
        for at, content in self._literals[_before(self._literals, start) : _before(self._literals, end) + 1]:
            first, last = max(at, start), min(at + len(content), end)
            if first < last:
                literals.append((first - start, last - start, content[first - at : last - at]))
        spans: list[tuple[int, int]] = []
        content_start = content_size = 0
        for at, of_content, length in self._spans[_before(self._spans, start) : _before(self._spans, end) + 1]:
            first, last = max(at, start), min(at + length, end)
            if first < last:
                if not spans:
                    content_start = of_content + first - at
                spans.append((first - start, last - start))
                content_size += last - first
        checksum = None
        if self._checksum is not None:
            first, last = max(self._checksum, start), min(self._checksum + 4, end)
            if first < last:
                checksum = (first - start, last - start, first - self._checksum)
        return _Plan(tuple(literals), tuple(spans), content_start, content_size, checksum)


def _before(places: Sequence[tuple[int, Any]] | Sequence[tuple[int, int, int]], place: int) -> int:
    """Return the number of the last part that begins at or before a place; 0 for none."""
    return max(0, bisect_right(places, place, key=operator.itemgetter(0)) - 1)


class _Plan(NamedTuple):
    literals: tuple[tuple[int, int, bytes], ...]  # from, to in the request; bytes
    spans: tuple[tuple[int, int], ...]  # from, to in the request, for content
    content_start: int  # in the frame's content
    content_size: int
    checksum: tuple[int, int, int] | None  # from, to in the request; from in the checksum


class Frames:
    """A piece: as many whole frames of one template as the content fills. The rest of the content is left out."""

    __slots__ = ("_checksums", "_content", "_template", "count", "length")

    def __init__(self, content: Piece, template: Template) -> None:
        self.count = content.length // template.content_length
        self.length = self.count * template.length
        self._content = content
        self._template = template
        self._checksums: BlockChecksums | None = None
        if template.plan(0, template.length).checksum is not None:
            self._checksums = BlockChecksums(content, template.content_length, self.count)

    def read_into(self, views: Views, offset: int) -> None:
        frame_length = self._template.length
        for view in views:
            position = 0
            size = len(view)
            while position < size:
                frame, start = divmod(offset + position, frame_length)
                count = min(frame_length - start, size - position)
                part = view[position : position + count] if count != size else view
                _fill(part, self._content, self._template, self._checksums, frame, start)
                position += count
            offset += size


class Frame:
    """A piece: one frame that holds all of some content. Its template is made when it is read: it may be long."""

    __slots__ = ("_checksums", "_content", "_template", "length")

    def __init__(self, content: Piece, length: int, template: Callable[[int], Template]) -> None:
        """`length`: of the frame; `template`: returns the template for a length of content. It has a checksum."""
        self.length = length
        self._content = content
        self._template = template
        self._checksums: BlockChecksums | None = None

    def read_into(self, views: Views, offset: int) -> None:
        template = self._template(self._content.length)
        checksums = self._checksums
        if checksums is None:
            checksums = self._checksums = BlockChecksums(self._content, self._content.length, 1)
        for view in views:
            _fill(view, self._content, template, checksums, 0, offset)
            offset += len(view)


def _fill(
    view: memoryview, content: Piece, template: Template, checksums: BlockChecksums | None, frame: int, start: int
) -> None:
    """Fill the view with a part of one frame."""
    plan, shift = template.place(start, len(view))
    if plan.spans:
        spans = [view[first:last] for first, last in plan.spans]
        begin = plan.content_start + shift
        content.read_into(spans, frame * template.content_length + begin)
        if checksums is not None and checksums.wants(frame):
            checksums.note(frame, begin, spans)
    for first, last, literal in plan.literals:
        view[first:last] = literal
    if plan.checksum is not None and checksums is not None:
        first, last, skip = plan.checksum
        view[first:last] = struct.pack("<I", checksums.crc(frame))[skip : skip + last - first]
