"""Checks for a laid-out archive of any format: any range is a slice, and costs no memory."""

import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import strategies as st

from bentofs.store.formats.pieces import Piece, read_bytes
from bentofs.store.formats.write import frames, segments

_GIB = 1 << 30


def check_ranges(laid_out: Piece, expected: bytes, data: st.DataObject) -> None:
    """Check that a few ranges equal another writer's bytes of the same content."""
    for _ in range(5):
        offset = data.draw(st.integers(0, len(expected)))
        size = data.draw(st.integers(0, len(expected) - offset))
        assert read_bytes(laid_out, offset, size) == expected[offset : offset + size]


def check_memory(lay_out: Callable[[int], Piece], most: int, spread: int) -> None:
    """Check that 100 GiB cost no more memory than one GiB: to lay out content of that length, and to read 300 ranges
    anywhere. The peak is at most `most` bytes. The number of objects is about the same, give or take `spread`."""
    chance = random.Random(7)

    def cost(length: int) -> tuple[int, int]:
        before = sys.getallocatedblocks()
        tracemalloc.start()
        laid_out = lay_out(length)
        for _ in range(300):
            read_bytes(laid_out, chance.randrange(laid_out.length - 131_072), chance.randrange(131_072))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return sys.getallocatedblocks() - before, peak

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frames, "_PARTS_KEPT", 0)  # else the number of objects depends on earlier reads
        cost(_GIB)
        small, large = cost(_GIB), cost(100 * _GIB)
    assert large[1] < most
    assert abs(large[0] - small[0]) < spread


@contextmanager
def in_segments_of(count: int) -> Iterator[None]:
    """Lay out archives in segments of `count` members, of which one is kept at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "MEMBERS", count)
        patch.setattr(segments, "AT_ONCE", count)
        patch.setattr(segments, "_KEPT", 1)
        yield
