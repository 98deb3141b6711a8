"""Frames: content between headers at fixed places, in parts of any size."""

import random
import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write.frames import Frames, Template
from tests.store.content import Memory, Unfilled, whole

_Step = tuple[str, bytes | int]


@st.composite
def _steps(draw: st.DrawFn) -> list[_Step]:
    literal = st.tuples(st.just("literal"), st.binary(min_size=1, max_size=4))
    content = st.tuples(st.just("content"), st.integers(1, 9))
    steps: list[_Step] = draw(st.lists(st.one_of(literal, content), max_size=6))
    steps.insert(draw(st.integers(0, len(steps))), ("content", draw(st.integers(1, 9))))
    if draw(st.booleans()):
        steps.insert(draw(st.integers(0, len(steps))), ("checksum", 4))
    return steps


def _template(steps: list[_Step]) -> Template:
    template = Template()
    for kind, what in steps:
        if isinstance(what, bytes):
            template.add_literal(what)
        elif kind == "content":
            template.add_content(what)
        else:
            template.add_checksum()
    return template


def _expected(steps: list[_Step], content: bytes) -> bytes:
    frame_content = sum(what for kind, what in steps if kind == "content" and isinstance(what, int))
    out = b""
    for start in range(0, len(content) - frame_content + 1, frame_content):
        at = start
        for kind, what in steps:
            if isinstance(what, bytes):
                out += what
            elif kind == "content":
                out += content[at : at + what]
                at += what
            else:
                out += zlib.crc32(content[start : start + frame_content]).to_bytes(4, "little")
    return out


@given(_steps(), st.binary(max_size=120), st.data())
def test_any_range_in_any_order_is_that_slice_of_the_whole(
    steps: list[_Step], content: bytes, data: st.DataObject
) -> None:
    expected = _expected(steps, content)
    frames = Frames(Memory(content), _template(steps))
    assert frames.length == len(expected)
    for _ in range(4):
        offset = data.draw(st.integers(0, len(expected)))
        size = data.draw(st.integers(0, len(expected) - offset))
        assert read_bytes(frames, offset, size) == expected[offset : offset + size]
    assert whole(frames) == expected


@given(_steps(), st.binary(min_size=30, max_size=120), st.data())
def test_scattered_buffers(steps: list[_Step], content: bytes, data: st.DataObject) -> None:
    expected = _expected(steps, content)
    frames = Frames(Memory(content), _template(steps))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(expected)), max_size=5)))
    buffers = [bytearray(last - first) for first, last in zip([0, *cuts], [*cuts, len(expected)], strict=True)]
    frames.read_into([memoryview(buffer) for buffer in buffers], 0)
    assert b"".join(buffers) == expected


def test_streaming_reads_the_content_once_checksums_included() -> None:
    template = _template([("literal", b"<<"), ("content", 1000), ("literal", b"|"), ("content", 500), ("checksum", 4)])
    content = Memory(random.Random(1).randbytes(1500 * 40 + 99))
    frames = Frames(content, template)
    for offset in range(0, frames.length, 700):
        read_bytes(frames, offset, min(700, frames.length - offset))
    assert content.bytes_read == 1500 * 40


def test_what_is_kept_of_requests_is_bounded_however_they_vary() -> None:
    template = Template()
    for _ in range(64):
        template.add_literal(b"abc")
        template.add_content(65_533)
    chance = random.Random(2)
    buffer = memoryview(bytearray(1 << 20))
    frames = Frames(Unfilled(100 << 30), template)
    tracemalloc.start()
    try:
        for _ in range(6000):
            size = chance.randrange(1, len(buffer))
            frames.read_into([buffer[:size]], chance.randrange(template.length - size))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 24 << 20, f"{kept:,} bytes are kept for one archive"
