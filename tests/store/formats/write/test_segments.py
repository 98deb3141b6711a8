"""A tar of very many members is laid out in segments: the same bytes, and few members at a time."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write import segments
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.tar import lay_out_tar, tar_length
from tests.store.content import Memory, whole
from tests.store.formats.strategies import MTIMES, member_lists


@given(member_lists(), MTIMES, st.integers(1, 4))
def test_segments_change_no_byte(members: Sequence[Member], mtime: int, step: int) -> None:
    expected = whole(lay_out_tar(members, mtime))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "MEMBERS", step)
        patch.setattr(segments, "AT_ONCE", step)
        patch.setattr(segments, "_KEPT", 1)
        laid_out = lay_out_tar(members, mtime)
        assert laid_out.length == tar_length(members, mtime) == len(expected)
        assert whole(laid_out) == expected
        chance = random.Random(step)
        for _ in range(5):
            start = chance.randrange(len(expected))
            size = chance.randrange(len(expected) - start + 1)
            assert read_bytes(laid_out, start, size) == expected[start : start + size]


def test_few_members_are_alive_at_a_time() -> None:
    made: list[int] = []

    class Made(Sequence[Member]):
        def __len__(self) -> int:
            return 50_000

        def __getitem__(self, number: int | slice) -> Member | list[Member]:  # type: ignore[override]
            if isinstance(number, slice):
                return [self[each] for each in range(*number.indices(len(self)))]  # type: ignore[misc]
            made.append(number)
            return Member(f"{number}", False, False, Memory(b"%d" % number))

    laid_out = lay_out_tar(Made(), 1)
    assert sorted(made) == list(range(50_000)), "each once, for its length"
    made.clear()
    for _ in range(3):
        assert read_bytes(laid_out, 1024 * 33_333 + 512, 5) == b"33333"
    assert made == list(range(33_000, 34_000))
