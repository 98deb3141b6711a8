"""Readahead: the right bytes for any readers, little for scattered reads, and bounded memory for all."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.clients.objects import ObjectInfo
from bentofs.store.errors import StoreUnreadableError
from bentofs.store.storage.readahead import Pin, ReadAhead


class Remote:
    """Objects of known bytes, and a record of the fetched ranges."""

    def __init__(self, sizes: list[int], seconds: float = 0.0) -> None:
        self.contents = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
        self.files = tuple(ObjectInfo(f"f{number}", size, "e", 0) for number, size in enumerate(sizes))
        self.fetched: list[tuple[str, int, int]] = []
        self.seconds = seconds
        self.error: Exception | None = None
        self.most_at_once = 0
        self.refilled = 0  # buffers that were used again
        self._now = 0
        self._lock = threading.Lock()

    def fetch(self, info: ObjectInfo, start: int, end: int, into: bytearray | None) -> bytearray:
        """Fill the buffer, if there is one: bytes that another thread still reads from it would be wrong."""
        with self._lock:
            self.fetched.append((info.key, start, end))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        time.sleep(self.seconds)  # a slow server
        with self._lock:
            self._now -= 1
        if self.error is not None:
            raise self.error
        assert 0 <= start < end <= info.size
        content = self.contents[int(info.key[1:])][start:end]
        if into is None:
            return bytearray(content)
        assert len(into) == len(content)
        self.refilled += 1
        into[:] = content
        return into

    @property
    def bytes_fetched(self) -> int:
        return sum(end - start for _, start, end in self.fetched)

    def read(self, ahead: ReadAhead, number: int, offset: int, size: int) -> None:
        """Read, and compare."""
        buffers = [bytearray(size // 3), bytearray(size - size // 3)]
        ahead.read_into(Pin(self.files, number), [memoryview(buffer) for buffer in buffers], offset)
        assert b"".join(buffers) == self.contents[number][offset : offset + size]


SIZES = [0, 1, 700_000, 3_000_000, 0, 10, 2_000_000]


@settings(max_examples=30)
@given(
    limit=st.sampled_from([1 << 20, 4 << 20, 64 << 20]),
    reads=st.lists(
        st.tuples(st.integers(0, len(SIZES) - 1), st.floats(0, 1), st.integers(0, 300_000), st.integers(1, 8)),
        max_size=15,
    ),
)
def test_any_reads_give_the_right_bytes(limit: int, reads: list[tuple[int, float, int, int]]) -> None:
    remote = Remote(SIZES)
    ahead = ReadAhead(remote.fetch, limit)

    def run(read: tuple[int, float, int, int]) -> None:
        number, where, size, times = read
        offset = int(where * SIZES[number])
        for _ in range(times):
            remote.read(ahead, number, offset, min(size, SIZES[number] - offset))
            offset += min(size, SIZES[number] - offset)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, reads))


def test_a_sequential_reader_gets_everything_once_and_in_parallel() -> None:
    remote = Remote([2_000_000] * 20, seconds=0.01)
    ahead = ReadAhead(remote.fetch, 64 << 20)
    for number, size in enumerate([2_000_000] * 20):
        for offset in range(0, size, 100_000):
            remote.read(ahead, number, offset, 100_000)
    assert remote.bytes_fetched == 40_000_000
    assert remote.most_at_once > 4
    assert len(remote.fetched) < 100


def test_who_reads_here_and_there_gets_just_that() -> None:
    remote = Remote([50_000_000])
    ahead = ReadAhead(remote.fetch, 64 << 20)
    for offset in (49_000_000, 7, 20_000_000, 30_000_000, 10_000_000):
        remote.read(ahead, 0, offset, 1000)
    assert remote.bytes_fetched == 5000


def test_memory_is_bounded() -> None:
    remote = Remote([60_000_000])
    ahead = ReadAhead(remote.fetch, 8 << 20)
    for offset in range(0, 60_000_000, 100_000):
        remote.read(ahead, 0, offset, 100_000)
        assert ahead._size + sum(map(len, ahead._spare)) <= (8 << 20) + 100_000
    assert remote.refilled > len(remote.fetched) // 2
    assert remote.bytes_fetched < 66_000_000
    assert len(remote.fetched) < 200, "it is read ahead to the end"


def test_several_readers_do_not_take_each_others_bytes_away() -> None:
    remote = Remote([20_000_000] * 6)
    ahead = ReadAhead(remote.fetch, 8 << 20)
    for offset in range(0, 20_000_000, 100_000):
        for number in (0, 2, 4):
            remote.read(ahead, number, offset, 100_000)
    assert remote.bytes_fetched < 70_000_000
    assert len(remote.fetched) < 600


def test_errors_reach_the_reader_and_are_not_kept() -> None:
    remote = Remote([1_000_000])
    ahead = ReadAhead(remote.fetch, 8 << 20)
    remote.error = StoreUnreadableError("it is away")
    for _ in range(2):
        with pytest.raises(StoreUnreadableError, match="away"):
            remote.read(ahead, 0, 0, 1000)
    remote.error = None
    remote.read(ahead, 0, 0, 1000)


def test_readers_of_the_same_bytes_share_one_fetch() -> None:
    remote = Remote([1_000_000], seconds=0.2)
    ahead = ReadAhead(remote.fetch, 8 << 20)
    with ThreadPoolExecutor(5) as pool:
        work: Callable[[int], None] = lambda _: remote.read(ahead, 0, 0, 1000)  # noqa: E731
        list(pool.map(work, range(5)))
    assert len(remote.fetched) == 1
