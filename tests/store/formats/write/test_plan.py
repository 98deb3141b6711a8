"""Plans: data only, and complete: an archive laid out by the results has the length of its bytes."""

import gc
import weakref
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.formats.pieces import Piece
from bentofs.store.formats.write import deflate
from bentofs.store.formats.write.members import Member, Packing
from bentofs.store.formats.write.plan import Plan, Range, read_parts, read_ranges
from bentofs.store.formats.write.registry import FORMATS, TAR_GZ, ZIP, Format
from tests.store.content import Memory, whole
from tests.store.formats.compressing import OnTheSpot
from tests.store.formats.strategies import MTIMES, packed_members
from tests.store.formats.writers import write_tar

_Packed = tuple[list[Member], list[Packing]]
_COMPRESSED = {name: kind for name, kind in FORMATS.items() if kind.plan}
each_format = pytest.mark.parametrize("kind", _COMPRESSED.values(), ids=_COMPRESSED)


@pytest.fixture(scope="module", autouse=True)
def _small_chunks() -> Iterator[None]:
    """Make chunks so small that the drawn members have many, of all kinds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflate, "CHUNK", 1000)
        patch.setattr(deflate, "_RUN", 700)
        yield


def _bytes_read(members: Sequence[Member]) -> int:
    return sum(member.content.bytes_read for member in members if isinstance(member.content, Memory))


def _plan(kind: Format, packed: _Packed, mtime: int) -> Plan:
    assert kind.plan is not None
    return kind.plan(packed[0], mtime, packed[1] if kind.needs_checksums else ())


@each_format
@settings(max_examples=15, deadline=None)
@given(packed=packed_members(), mtime=MTIMES)
def test_a_plan_is_enough_to_know_the_length(kind: Format, packed: _Packed, mtime: int) -> None:
    """Making the plan and laying out by its results read nothing; measuring is all in between."""
    compressor = OnTheSpot()
    members = packed[0]
    before = _bytes_read(members)
    plan = _plan(kind, packed, mtime)
    assert {part: list(each.ranges(plan)) for part, each in plan.parts.items()}
    assert list(plan.large) == [number for number, packing in enumerate(plan.packings) if packing is Packing.LARGE]
    assert _bytes_read(members) == before
    results = compressor.results(plan)
    before = _bytes_read(members)
    assert kind.compress is not None
    laid_out = kind.compress(plan, results, compressor.maker)
    assert _bytes_read(members) == before
    assert laid_out.length == len(whole(laid_out))
    compressor.maker.close()


@each_format
@settings(max_examples=15, deadline=None)
@given(packed=packed_members(), mtime=MTIMES)
def test_ranges_are_in_order_and_within_the_tar(kind: Format, packed: _Packed, mtime: int) -> None:
    plan = _plan(kind, packed, mtime)
    assert plan.wanted == kind.part
    assert plan.wanted in plan.parts
    for part in plan.parts.values():
        codec = part.codec(1)
        end = 0
        for start, stop in part.ranges(plan):
            assert end <= start < stop <= plan.tar.length
            assert stop - start <= codec.chunk
            end = stop
        assert not codec.window


@settings(max_examples=60, deadline=None)
@given(packed=packed_members(), mtime=MTIMES)
def test_both_formats_plan_the_same_and_one_reading_serves_both(packed: _Packed, mtime: int) -> None:
    plan, other = _plan(TAR_GZ, packed, mtime), _plan(ZIP, packed, mtime)
    ranges = {name: list(part.ranges(plan)) for name, part in plan.parts.items()}
    assert ranges == {name: list(part.ranges(other)) for name, part in other.parts.items()}
    small = [
        member.content
        for member, packing in zip(*packed, strict=True)
        if isinstance(member.content, Memory) and packing is Packing.SMALL
    ]
    tar = write_tar(packed[0], mtime)
    for parts in ((TAR_GZ.part,), (ZIP.part,), (TAR_GZ.part, ZIP.part)):
        for content in small:
            content.bytes_read = 0
        found: dict[str, list[bytes]] = {part: [] for part in parts}
        for part, chunks in read_parts(plan, parts):
            found[part] += map(bytes, chunks)
        assert found == {part: [tar[start:stop] for start, stop in ranges[part]] for part in parts}
        assert [content.bytes_read for content in small] == [content.length for content in small]
    assert [tar[start:stop] for start, stop in ranges[ZIP.part]] == [content.content for content in small]


class _Once:
    """Content of which each byte may be read once."""

    def __init__(self, length: int) -> None:
        self._content = Memory(bytes(number % 251 for number in range(length)))
        self.length = length
        self.read = bytearray(length)

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        self._content.read_into(views, offset)
        for at in range(offset, offset + sum(map(len, views))):
            self.read[at] += 1

    def slice(self, start: int, stop: int) -> bytes:
        return self._content.content[start:stop]


_cuts = st.lists(st.integers(0, 400), unique=True, max_size=20).map(sorted)


@given(cuts=st.lists(_cuts, max_size=4))
def test_any_ranges_are_read_once_and_nothing_between_them(cuts: list[list[int]]) -> None:
    content = _Once(400)
    parts = {
        str(number): [Range(*each) for each in zip(of[::2], of[1::2], strict=False)] for number, of in enumerate(cuts)
    }
    found: dict[str, list[bytes]] = {part: [] for part in parts}
    piece: Piece = content
    for part, chunks in read_ranges(piece, parts):
        found[part] += map(bytes, chunks)
    assert found == {part: [content.slice(*each) for each in ranges] for part, ranges in parts.items()}
    wanted = {at for ranges in parts.values() for start, stop in ranges for at in range(start, stop)}
    assert content.read == bytearray(at in wanted for at in range(400))


@each_format
def test_an_archive_is_freed_without_the_garbage_collector(kind: Format) -> None:
    """A plan that referred to itself kept thousands of members in memory until the next collection."""
    assert kind.plan is not None
    plan = kind.plan([], 0, ())
    freed = weakref.ref(plan)
    gc.disable()
    try:
        del plan
        assert freed() is None
    finally:
        gc.enable()
