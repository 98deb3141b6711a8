"""An archive of very many members is laid out in segments: the same bytes, and few members at a time."""

import random
from collections.abc import Sequence
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write import segments
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.registry import FORMATS, ZIP, Format
from bentofs.store.formats.write.tar import lay_out_tar
from bentofs.store.formats.write.zip import lay_out_zip
from tests.store.content import Memory, whole
from tests.store.formats.laying_out import in_segments_of
from tests.store.formats.strategies import MTIMES, member_lists

STORED = {name: kind for name, kind in FORMATS.items() if kind.lay_out and kind.length}


@pytest.mark.parametrize("kind", STORED.values(), ids=STORED)
@settings(max_examples=50)
@given(members=member_lists(), mtime=MTIMES, step=st.integers(1, 4))
def test_segments_change_no_byte(kind: Format, members: Sequence[Member], mtime: int, step: int) -> None:
    assert kind.lay_out is not None
    assert kind.length is not None
    expected = whole(kind.lay_out(members, mtime))
    assert len(expected) == kind.length(members, mtime)
    with in_segments_of(step):
        laid_out = kind.lay_out(members, mtime)
        assert laid_out.length == len(expected)
        assert whole(laid_out) == expected
        chance = random.Random(step)
        for _ in range(5):
            start = chance.randrange(len(expected))
            size = chance.randrange(len(expected) - start + 1)
            assert read_bytes(laid_out, start, size) == expected[start : start + size]


class Made(Sequence[Member]):
    """Many members, which are made when they are asked for."""

    def __init__(self, size: int = 5) -> None:
        self.numbers: list[int] = []
        self._size = size

    def __len__(self) -> int:
        return 50_000

    def __getitem__(self, number: int | slice) -> Member | list[Member]:  # type: ignore[override]
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]  # type: ignore[misc]
        if number >= len(self):
            raise IndexError(number)
        self.numbers.append(number)
        return Member(f"{number:05}", False, False, Memory(b"%0*d" % (self._size, number)))


@pytest.mark.parametrize("kind", [FORMATS["tar"], ZIP], ids=["tar", "zip"])
def test_few_members_are_alive_at_a_time(kind: Format) -> None:
    made = Made()
    assert kind.lay_out is not None
    laid_out = kind.lay_out(made, 1)
    assert sorted(made.numbers) == list(range(50_000)), "each once, for its length"
    made.numbers.clear()
    offset = 1024 * 33_333 + 512 if kind is FORMATS["tar"] else (30 + 5 + 9 + 5) * 33_333 + 44
    for _ in range(3):
        assert read_bytes(laid_out, offset, 5) == b"33333"
    assert made.numbers == list(range(33_250, 33_500))


def test_each_segment_is_laid_out_by_one_of_its_readers() -> None:
    made = Made()
    laid_out = lay_out_tar(made, 1)
    made.numbers.clear()
    with mock.patch.object(segments, "_KEPT", 2):
        for _ in range(2):
            read_bytes(laid_out, 1024 * 10_000, 1 << 20)
    assert [made.numbers.count(number) for number in (10_000, 10_999)] == [2, 2]


def test_a_zip_checks_the_next_large_member_in_another_segment_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentofs.store.formats.write.zip._WORTH_AHEAD", 1000)
    sizes = [1500, 3, 1200, 1000]
    members = [Member(f"{number}", False, False, Memory(bytes(size))) for number, size in enumerate(sizes)]
    asked: list[tuple[str, int]] = []

    def ahead(member: Member, count: int) -> bool:
        asked.append((member.path, count))
        return True

    with in_segments_of(1):
        laid_out = lay_out_zip(members, 1, lambda _: 0, ahead)
        for offset in range(0, laid_out.length, 100):
            read_bytes(laid_out, offset, min(100, laid_out.length - offset))
    assert {path for path, _ in asked} == {"2", "3"}
    assert sum(count for path, count in asked if path == "2") == 1500
