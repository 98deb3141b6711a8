"""Test that buffers are used again, but never while anybody has a view of them."""

from bentofs.store.util.buffer_pool import BUFFER, BufferPool


def test_used_again_after_the_last_view_only() -> None:
    pool = BufferPool()
    first = pool.take()
    assert len(first) == BUFFER
    first[:4] = b"mine"
    part = first[1:3].toreadonly()
    del first
    pool.take()[:4] = b"over"
    assert bytes(part) == b"in"
    del part
    seen = [pool.take(), pool.take()]
    assert {bytes(view[:4]) for view in seen} == {b"mine", b"over"}


def test_views_outlive_the_pool() -> None:
    pool = BufferPool()
    view = pool.take()
    view[:] = b"x" * BUFFER
    del pool
    assert bytes(view) == b"x" * BUFFER
