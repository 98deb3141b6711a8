"""How long the bytes of an import stay readable, and what ends that time."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.mount.incoming import read_back
from bentofs.mount.incoming.read_back import ReadBack

Keep = Callable[[int, bytes], None]


@pytest.fixture
def kept(tmp_path: Path) -> ReadBack:
    return ReadBack(str(tmp_path))


@pytest.fixture
def keep(kept: ReadBack, tmp_path: Path) -> Keep:
    def put(receipt: int, content: bytes) -> None:
        path = tmp_path / "imported"
        path.write_bytes(content)
        kept.keep(receipt, os.open(path, os.O_RDONLY))
        path.unlink()

    return put


def read(kept: ReadBack, receipt: int) -> bytes | None:
    if not kept.open(receipt):
        return None
    try:
        buffer = bytearray(100)
        return bytes(buffer[: kept.read_into(receipt, memoryview(buffer), 1)])
    finally:
        kept.close(receipt)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_read_by_its_receipt(kept: ReadBack, keep: Keep) -> None:
    keep(1, b"one")
    keep(2, b"another")
    assert [read(kept, receipt) for receipt in (1, 2, 3)] == [b"ne", b"nother", None]


def test_gone_when_its_time_is_over(kept: ReadBack, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    keep(1, b"one")
    kept.tidy()
    assert read(kept, 1) == b"ne"
    monkeypatch.setattr(read_back, "_SECONDS", -1.0)
    keep(2, b"two")
    assert kept.open(2)
    kept.tidy()
    buffer = bytearray(3)
    assert kept.read_into(2, memoryview(buffer), 0) == 3, "not while it is read"
    kept.close(2)
    assert read(kept, 2) is None
    kept.drop()
    assert descriptors() == before


def test_dropped_when_room_is_wanted(kept: ReadBack, keep: Keep) -> None:
    before = descriptors()
    keep(1, b"one")
    keep(2, b"two")
    assert kept.open(2)
    kept.drop()
    assert read(kept, 1) is None
    assert not kept.open(2), "nobody else begins to read it"
    assert kept.read_into(2, memoryview(bytearray(3)), 0) == 3
    kept.close(2)
    assert descriptors() == before


def test_not_kept_where_room_is_scarce(kept: ReadBack, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    monkeypatch.setattr(read_back, "free_room", lambda _path: 11)
    keep(1, b"one")
    assert read(kept, 1) is None
    keep(2, b"tw")
    assert read(kept, 2) == b"w"
    keep(3, b"th")
    kept.tidy()
    assert [read(kept, receipt) for receipt in (2, 3)] == [None, b"h"], "the older one makes room"
    kept.drop()
    assert descriptors() == before


def test_few_are_kept(kept: ReadBack, keep: Keep) -> None:
    before = descriptors()
    for receipt in range(100):
        keep(receipt, b"x" * receipt)
    kept.tidy()
    assert [receipt for receipt in range(100) if kept.open(receipt)] == list(range(68, 100))
    kept.drop()
    for receipt in range(68, 100):
        kept.close(receipt)
    assert descriptors() == before
