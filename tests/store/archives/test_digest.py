"""Hashed: the SHA-256 of a piece whose bytes are read in any order, with no byte read again without need."""

import hashlib
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.archives.digest import Hashed, sha256_of
from bentofs.store.errors import SourceChangedError
from bentofs.store.formats.pieces import read_bytes
from tests.store.at_once import in_threads
from tests.store.content import Memory

_CONTENT = random.Random(4).randbytes(5_000)
_SUM = hashlib.sha256(_CONTENT).hexdigest()
_reads = st.lists(st.tuples(st.integers(0, 4_999), st.integers(0, 5_000)), max_size=30)


@given(st.integers(0, 5_000), _reads, st.sampled_from([0, 700, 10_000]))
def test_the_sum_is_that_of_the_bytes(length: int, reads: list[tuple[int, int]], ahead: int) -> None:
    content = _CONTENT[:length]
    hashed = Hashed(Memory(content), ahead)
    for offset, size in reads:
        end = min(offset + size, length)
        if offset < end:
            first, second = bytearray((end - offset) // 3), bytearray(end - offset - (end - offset) // 3)
            hashed.read_into([memoryview(first), memoryview(second)], offset)
            assert first + second == content[offset:end]
    wanted = hashlib.sha256(content).hexdigest()
    assert hashed.sha256() == sha256_of(Memory(content)) == wanted
    assert hashed.sha256() == wanted


@given(st.permutations(range(10)))
def test_parts_in_any_order_are_read_once_if_there_is_room(order: Sequence[int]) -> None:
    source = Memory(_CONTENT)
    hashed = Hashed(source, len(_CONTENT))
    for part in order:
        read_bytes(hashed, part * 500, 500)
    assert hashed.sha256() == _SUM
    assert source.bytes_read == len(_CONTENT)


def test_parts_that_are_read_twice_take_no_room_twice() -> None:
    """An upload by plain HTTP reads a part for its signature first, and then to send it, in other steps."""
    source = Memory(_CONTENT)
    hashed = Hashed(source, 4_000)
    for part in range(4, -1, -1):
        for step in (1000, 250, 100):
            for offset in range(part * 1000, part * 1000 + 1000, step):
                read_bytes(hashed, offset, step)
    before = source.bytes_read
    assert hashed.sha256() == _SUM
    assert source.bytes_read == before


@pytest.mark.parametrize("ahead", [0, 1_500])
def test_without_room_the_rest_is_read_again(ahead: int) -> None:
    source = Memory(_CONTENT)
    hashed = Hashed(source, ahead)
    for offset in range(4_500, -1, -500):
        read_bytes(hashed, offset, 500)
    assert hashed.sha256() == _SUM
    assert source.bytes_read == 2 * len(_CONTENT) - 500 - ahead


def test_threads_that_read_parts() -> None:
    source = Memory(_CONTENT)
    hashed = Hashed(source, len(_CONTENT))
    in_threads(lambda part: [read_bytes(hashed, part * 500 + at, 50) for at in range(0, 500, 50)], range(10))
    assert hashed.sha256() == _SUM


def test_a_part_that_cannot_be_read_is_not_hashed() -> None:
    class Broken(Memory):
        is_broken = True

        def read_into(self, views: Sequence[memoryview], offset: int) -> None:
            if self.is_broken:
                raise SourceChangedError("changed")
            super().read_into(views, offset)

    source = Broken(_CONTENT)
    hashed = Hashed(source, 100)
    with pytest.raises(SourceChangedError):
        read_bytes(hashed, 0, 500)
    with pytest.raises(SourceChangedError):
        hashed.sha256()
    source.is_broken = False
    assert hashed.sha256() == _SUM
