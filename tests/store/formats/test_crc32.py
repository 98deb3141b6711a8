"""CRC-32s of parts in any order, compared with zlib."""

import itertools
import random
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.formats.crc32 import BlockChecksums, RunningChecksum, crc32_combine, crc32_of, crc32_of_repeated
from tests.store.at_once import in_threads
from tests.store.content import Memory

Part = tuple[int, int]  # start, end


@st.composite
def _cut(draw: st.DrawFn) -> tuple[bytes, list[Part]]:
    """Draw content, and the parts it is cut into, none empty."""
    content = draw(st.binary(min_size=1, max_size=200))
    cuts = sorted({0, len(content), *draw(st.lists(st.integers(0, len(content)), max_size=12))})
    return content, list(itertools.pairwise(cuts))


def _add(running: RunningChecksum, content: bytes, part: Part) -> None:
    views = [memoryview(content)[part[0] : part[1]]]
    if not running.extend(part[0], views):
        running.add(part[0], views)


@given(_cut(), st.data())
def test_parts_in_any_order_and_more_than_once(cut: tuple[bytes, list[Part]], data: st.DataObject) -> None:
    content, parts = cut
    order = data.draw(st.permutations(parts + data.draw(st.lists(st.sampled_from(parts), max_size=6))))
    running = RunningChecksum()
    assert not running.begun
    missing = set(parts)
    for part in order:
        assert running.value(len(content)) == (None if missing else zlib.crc32(content))
        _add(running, content, part)
        missing.discard(part)
        assert running.begun
    assert running.value(len(content)) == zlib.crc32(content)


def test_what_arrives_while_the_part_before_it_is_taken_is_not_forgotten() -> None:
    content = b"0123456789"
    running = RunningChecksum()

    class Meanwhile(list[memoryview]):
        def __iter__(self) -> Iterator[memoryview]:
            yield from super().__iter__()
            running.add(5, [memoryview(content)[5:]])  # like another thread

    assert running.extend(0, Meanwhile([memoryview(content)[:5]]))
    before = running.is_waiting
    running.join()
    assert (before, running.is_waiting) == (True, False)
    assert running.value(10) == zlib.crc32(content)


@given(_cut(), st.data())
def test_gaps_and_only_gaps_are_read(cut: tuple[bytes, list[Part]], data: st.DataObject) -> None:
    content, parts = cut
    served = data.draw(st.lists(st.sampled_from(parts), unique=True))
    running = RunningChecksum()
    for part in served:
        _add(running, content, part)
    start = data.draw(st.integers(0, 5))
    piece = Memory(b"x" * start + content + b"behind")
    assert running.complete(piece, start, len(content)) == zlib.crc32(content)
    assert piece.bytes_read == len(content) - sum(last - first for first, last in served)
    assert running.value(len(content)) == zlib.crc32(content)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_parts_that_overlap_in_any_way_never_give_a_wrong_sum(content: bytes, data: st.DataObject) -> None:
    running = RunningChecksum()
    for _ in range(data.draw(st.integers(0, 12))):
        first = data.draw(st.integers(0, len(content)))
        _add(running, content, (first, data.draw(st.integers(first, len(content)))))
        assert running.value(len(content)) in (None, zlib.crc32(content))
    assert running.complete(Memory(content), 0, len(content)) == zlib.crc32(content)


def test_what_is_kept_of_parts_that_run_ahead_is_bounded() -> None:
    content = random.Random(1).randbytes(5000)
    running = RunningChecksum()
    for first in range(4999, 0, -1):
        _add(running, content, (first, first + 1))
    assert len(running._parts) <= 256
    piece = Memory(content)
    assert running.complete(piece, 0, 5000) == zlib.crc32(content)
    assert piece.bytes_read <= 5000 - 256


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_combined(parts: list[bytes]) -> None:
    crc = 0
    for part in parts:
        crc = crc32_combine(crc, zlib.crc32(part), len(part))
    assert crc == zlib.crc32(b"".join(parts))


@given(st.binary(min_size=1, max_size=20), st.integers(0, 300), st.binary(max_size=5))
def test_repeated(pattern: bytes, count: int, before: bytes) -> None:
    assert crc32_of_repeated(pattern, count, zlib.crc32(before)) == zlib.crc32(before + pattern * count)


@pytest.mark.parametrize("length", [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 1_000_000])
def test_of_a_range_of_a_piece(length: int) -> None:
    piece = Memory(random.Random(2).randbytes(length + 20))
    assert crc32_of(piece, 10, length, 99) == zlib.crc32(piece.content[10 : 10 + length], 99)


@pytest.mark.parametrize("length", [1 << 20, (1 << 20) + 1, (4 << 20) - 1, (8 << 20) + 77, (16 << 20) + 1, 17_000_003])
def test_long_ranges_are_read_by_several_threads(length: int) -> None:
    content = random.Random(length).randbytes(length + 10)
    piece = Memory(content)
    assert crc32_of(piece, 3, length, 12345) == zlib.crc32(content[3 : 3 + length], 12345)


def test_what_another_thread_cannot_read_is_raised() -> None:
    class Damaged(Memory):
        def read_into(self, views: Sequence[memoryview], offset: int) -> None:
            if offset + len(views[0]) > 1_900_000:
                raise OSError("cannot be read")
            super().read_into(views, offset)

    with pytest.raises(OSError, match="cannot be read"):
        crc32_of(Damaged(bytes(2_000_000)), 0, 2_000_000)


def test_a_file_on_a_dead_disk_keeps_no_other_from_being_summed() -> None:
    gate = threading.Event()

    class Stuck(Memory):
        def read_into(self, views: Sequence[memoryview], offset: int) -> None:
            gate.wait(30)
            super().read_into(views, offset)

    length = 20 << 20
    stuck = threading.Thread(target=crc32_of, args=(Stuck(bytes(length)), 0, length))
    stuck.start()
    done: list[int] = []
    other = threading.Thread(target=lambda: done.append(crc32_of(Memory(b"x" * length), 0, length)))
    other.start()
    other.join(10)
    in_time = list(done)
    gate.set()
    stuck.join(30)
    other.join(30)
    assert in_time == done == [zlib.crc32(b"x" * length)]


def test_pieces_that_compute_such_sums_themselves() -> None:
    """There are more nested ranges than threads."""

    class Nested(Memory):
        def read_into(self, views: Sequence[memoryview], offset: int) -> None:
            assert crc32_of(Memory(bytes(1 << 20)), 0, 1 << 20) == zlib.crc32(bytes(1 << 20))
            super().read_into(views, offset)

    content = random.Random(5).randbytes(9 << 20)
    with ThreadPoolExecutor(8) as threads:
        sums = [threads.submit(crc32_of, Nested(content), 0, len(content)) for _ in range(8)]
        assert {each.result(60) for each in sums} == {zlib.crc32(content)}


class TestBlockChecksums:
    def test_of_blocks_served_whole_nothing_is_read_again(self) -> None:
        piece = Memory(random.Random(3).randbytes(400))
        sums = BlockChecksums(piece, 100, 4)
        for block in (2, 0, 3, 1):
            content = memoryview(bytearray(piece.content[100 * block : 100 * block + 100]))
            assert sums.wants(block)
            sums.note(block, 0, [content[:30], content[30:90]])
            assert sums.wants(block)
            sums.note(block, 90, [content[90:]])
            assert not sums.wants(block)
        assert [sums.crc(block) for block in range(4)] == [
            zlib.crc32(piece.content[start : start + 100]) for start in range(0, 400, 100)
        ]
        assert piece.bytes_read == 0

    def test_of_blocks_never_served_each_is_read_once(self) -> None:
        piece = Memory(random.Random(4).randbytes(300))
        sums = BlockChecksums(piece, 100, 3)
        for _ in range(2):
            assert [sums.crc(block) for block in range(3)] == [
                zlib.crc32(piece.content[start : start + 100]) for start in range(0, 300, 100)
            ]
        assert piece.bytes_read == 300

    def test_more_blocks_begun_than_are_kept(self) -> None:
        piece = Memory(random.Random(5).randbytes(500 * 10))
        sums = BlockChecksums(piece, 10, 500)
        for block in range(500):
            sums.note(block, 0, [memoryview(piece.content)[10 * block : 10 * block + 5]])
        for block in range(500):
            sums.note(block, 5, [memoryview(piece.content)[10 * block + 5 : 10 * block + 10]])
        assert all(sums.crc(block) == zlib.crc32(piece.content[10 * block : 10 * block + 10]) for block in range(500))
        assert len(sums._running) <= 64

    def test_from_several_threads(self) -> None:
        length, count = 64, 200
        piece = Memory(random.Random(6).randbytes(length * count))
        sums = BlockChecksums(piece, length, count)
        wanted = [zlib.crc32(piece.content[length * block : length * (block + 1)]) for block in range(count)]
        start = threading.Barrier(6)

        def work(seed: int) -> None:
            chance = random.Random(seed)
            start.wait(10)
            for _ in range(4000):
                block = chance.randrange(count)
                if chance.random() < 0.1:
                    assert sums.crc(block) == wanted[block]
                elif sums.wants(block):
                    first = chance.choice([0, 16, 32, 48])
                    at = length * block + first
                    sums.note(block, first, [memoryview(piece.content)[at : at + 16]])

        in_threads(work, range(6))
        assert [sums.crc(block) for block in range(count)] == wanted
