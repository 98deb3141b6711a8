"""Bytes that are read behind their writer."""

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.mount.incoming.decoder_memory import DecoderMemory
from bentofs.mount.incoming.upload_reader import UploadReader
from bentofs.store.errors import CancelledError
from bentofs.store.util.memory_budget import MemoryBudget


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "spooled", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def read_all(arriving: UploadReader, size: int) -> bytes:
    content = b""
    buffer = memoryview(bytearray(size))
    while count := arriving.read_into(buffer, len(content)):
        content += buffer[:count]
    return content


def test_what_is_read_is_what_was_written_in_any_order(descriptor: int) -> None:
    content = random.Random(1).randbytes(300_000)
    arriving = UploadReader(descriptor, DecoderMemory(MemoryBudget()))
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(read_all(arriving, 7_000)))
    reader.start()
    starts = list(range(0, len(content), 10_000))
    for pair in range(0, len(starts), 2):  # of every two runs, the second first
        for start in reversed(starts[pair : pair + 2]):
            os.pwrite(descriptor, content[start : start + 10_000], start)
            assert arriving.wrote(start, start + 10_000)
    arriving.finish(len(content))
    reader.join(10)
    assert read == [content]
    assert arriving.length() == len(content)


def test_a_gap_that_is_never_written_is_zeros(descriptor: int) -> None:
    arriving = UploadReader(descriptor, DecoderMemory(MemoryBudget()))
    os.pwrite(descriptor, b"end", 1000)
    assert arriving.wrote(1000, 1003)
    arriving.finish(1003)
    assert read_all(arriving, 64) == bytes(1000) + b"end"


def test_changing_what_was_read_is_told(descriptor: int) -> None:
    arriving = UploadReader(descriptor, DecoderMemory(MemoryBudget()))
    os.pwrite(descriptor, bytes(100), 0)
    assert arriving.wrote(0, 100)
    assert arriving.wrote(50, 60)  # nobody has seen it yet
    arriving.read_into(memoryview(bytearray(40)), 0)
    assert arriving.wrote(40, 60)
    assert not arriving.wrote(39, 60)


def test_readers_end_when_the_upload_does(descriptor: int) -> None:
    arriving = UploadReader(descriptor, DecoderMemory(MemoryBudget()))
    timer = threading.Timer(0.1, arriving.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        arriving.read_into(memoryview(bytearray(1)), 0)
    with pytest.raises(CancelledError):
        arriving.length()
    timer.join()
