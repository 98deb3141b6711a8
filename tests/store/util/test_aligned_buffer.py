"""The alignment of buffers."""

import ctypes
import mmap

import pytest

from bentofs.store.util.aligned_buffer import page_buffer


@pytest.mark.parametrize("size", [0, 1, 4096, 128 << 10, 1_000_001])
def test_it_begins_where_a_page_does(size: int) -> None:
    buffers = [page_buffer(size) for _ in range(3)]
    for number, buffer in enumerate(buffers):
        assert len(buffer) == size
        buffer[:] = bytes([number]) * size
        if size:
            assert ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % mmap.PAGESIZE == 0
    assert [bytes(buffer) for buffer in buffers] == [bytes([number]) * size for number in range(3)]
