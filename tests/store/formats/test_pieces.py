"""Pieces: a read of any range, into any number of buffers, returns that range of the whole."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.formats.pieces import (
    Generated,
    Literal,
    Piece,
    PieceList,
    Repeated,
    Slice,
    Zeros,
    copy_into,
    read_bytes,
    split,
)
from tests.store.content import Memory, whole


@st.composite
def _pieces(draw: st.DrawFn, depth: int = 2) -> tuple[Piece, bytes]:
    """Draw a piece of any kind, and its expected bytes."""
    content = draw(st.binary(max_size=40))
    kind = draw(st.sampled_from(["literal", "zeros", "generated", "repeated", "slice", "list"][: 6 if depth else 4]))
    if kind == "literal":
        return Literal(content), content
    if kind == "zeros":
        return Zeros(len(content)), bytes(len(content))
    if kind == "generated":
        return Generated(len(content), lambda: content), content
    if kind == "repeated":
        pattern, count = content[:7] or b"ab", draw(st.integers(0, 9))
        return Repeated(pattern, count), pattern * count
    if kind == "slice":
        piece, expected = draw(_pieces(depth - 1))
        start = draw(st.integers(0, len(expected)))
        length = draw(st.integers(0, len(expected) - start))
        return Slice(piece, start, length), expected[start : start + length]
    parts = draw(st.lists(_pieces(depth - 1), max_size=5))
    return PieceList([piece for piece, _ in parts]), b"".join(expected for _, expected in parts)


@given(_pieces())
def test_length_is_known_and_true(case: tuple[Piece, bytes]) -> None:
    piece, expected = case
    assert piece.length == len(expected)
    assert whole(piece) == expected


@given(_pieces(), st.data())
def test_any_range_is_that_slice_of_the_whole(case: tuple[Piece, bytes], data: st.DataObject) -> None:
    piece, expected = case
    offset = data.draw(st.integers(0, len(expected)))
    size = data.draw(st.integers(0, len(expected) - offset))
    assert read_bytes(piece, offset, size) == expected[offset : offset + size]


@given(_pieces(), st.data())
def test_scattered_buffers_are_filled_in_order_and_nothing_beside_them(
    case: tuple[Piece, bytes], data: st.DataObject
) -> None:
    piece, expected = case
    offset = data.draw(st.integers(0, len(expected)))
    sizes = data.draw(st.lists(st.integers(0, 9), max_size=6))
    while sum(sizes) > len(expected) - offset:
        sizes.pop()
    gap = data.draw(st.integers(1, 3))  # the buffers do not touch: the bytes between them must not change
    buffer = bytearray(b"\xaa" * (sum(sizes) + gap * (len(sizes) + 1)))
    views, at, wanted = [], gap, bytearray(buffer)
    for size in sizes:
        views.append(memoryview(buffer)[at : at + size])
        wanted[at : at + size] = expected[offset : offset + size]
        offset += size
        at += size + gap
    start = offset - sum(sizes)
    if sum(sizes):
        piece.read_into(views, start)
    assert buffer == wanted


@given(st.lists(st.binary(max_size=10), max_size=5), st.data())
def test_split_cuts_the_views_at_a_byte(parts: list[bytes], data: st.DataObject) -> None:
    views = [memoryview(bytearray(part)) for part in parts]
    count = data.draw(st.integers(0, sum(map(len, parts))))
    if not views:
        return
    head, rest = split(views, count)
    assert b"".join(head) == b"".join(parts)[:count]
    assert b"".join(rest) == b"".join(parts)[count:]


def test_split_refuses_more_than_there_is() -> None:
    with pytest.raises(AssertionError):
        split([memoryview(bytearray(3))], 4)


def test_empty_pieces_leave_no_trace_in_a_list() -> None:
    pieces = PieceList([Literal(b""), Literal(b"a"), Zeros(0), PieceList(), Literal(b"b")])
    assert (len(pieces._pieces), pieces.length, whole(pieces)) == (2, 2, b"ab")


def test_a_list_reads_only_the_pieces_asked_for() -> None:
    parts = [Memory(bytes([number]) * 10) for number in range(10)]
    assert read_bytes(PieceList(parts), 35, 10) == b"\3" * 5 + b"\4" * 5
    assert [part.bytes_read for part in parts] == [0, 0, 0, 5, 5, 0, 0, 0, 0, 0]


def test_generated_bytes_of_another_length_are_never_served() -> None:
    with pytest.raises(AssertionError, match="3 bytes were made where 4"):
        read_bytes(Generated(4, lambda: b"abc"), 0, 2)


def test_an_error_of_a_piece_reaches_the_reader() -> None:
    class Broken:
        length = 5

        def read_into(self, views: Sequence[memoryview], offset: int) -> None:
            raise OSError(f"{len(views)} at {offset}")

    with pytest.raises(OSError, match="1 at 0"):
        read_bytes(PieceList([Literal(b"ab"), Broken()]), 1, 3)


def test_copy_into_never_resizes_a_buffer() -> None:
    buffer = bytearray(4)
    with pytest.raises(ValueError, match=r"memoryview|assign"):
        copy_into([memoryview(buffer)], b"ab", 0)
    assert len(buffer) == 4
