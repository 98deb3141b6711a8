"""All formats: exact lengths, any range, an independent writer's bytes, one read of the served content."""

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentofs.store.formats.pieces import read_bytes
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.registry import FORMATS, TAR_GZ, Format
from tests.store.content import Memory, laid_out_as, whole
from tests.store.formats import golden
from tests.store.formats.strategies import MTIMES, member_lists, ranges
from tests.store.formats.writers import WRITERS, write_tar

STORED = {name: kind for name, kind in FORMATS.items() if kind.lay_out}
each_format = pytest.mark.parametrize("kind", STORED.values(), ids=STORED)


def test_every_format_has_a_writer_to_compare_with() -> None:
    assert STORED.keys() == WRITERS.keys()
    assert [kind.suffix for kind in FORMATS.values()] == [
        ".bentomodel",
        ".tar",
        ".tar.gz",
        ".zip",
        ".tar.xz",
        ".tar.bz2",
    ]


@each_format
@given(members=member_lists(), mtime=MTIMES)
def test_bytes_of_an_independent_writer_and_length_by_arithmetic(
    kind: Format, members: list[Member], mtime: int
) -> None:
    expected = WRITERS[kind.name](members, mtime)
    assert kind.length is not None
    assert kind.length(members, mtime) == len(expected)
    laid_out = laid_out_as(kind, members, mtime)
    assert laid_out.length == len(expected)
    assert whole(laid_out) == expected


@each_format
@given(members=member_lists(), mtime=MTIMES, data=st.data())
def test_any_range_is_that_slice_of_the_whole(
    kind: Format, members: list[Member], mtime: int, data: st.DataObject
) -> None:
    expected = WRITERS[kind.name](members, mtime)
    laid_out = laid_out_as(kind, members, mtime)  # new: ranges come before any sequential read
    for offset, size in data.draw(ranges(len(expected))):
        assert read_bytes(laid_out, offset, size) == expected[offset : offset + size]


@each_format
@settings(max_examples=6)
@given(size=st.integers(4_150_000, 4_210_000), seed=st.integers(0, 99), data=st.data())
def test_around_a_whole_frame(kind: Format, size: int, seed: int, data: st.DataObject) -> None:
    content = Memory(random.Random(seed).randbytes(size))
    members = [Member("model.yaml", False, False, Memory(b"yaml")), Member("weights", False, False, content)]
    expected = WRITERS[kind.name](members, 1)
    laid_out = laid_out_as(kind, members, 1)
    assert kind.length is not None
    assert kind.length(members, 1) == laid_out.length == len(expected)
    for offset, count in data.draw(ranges(len(expected), count=3)):
        assert read_bytes(laid_out, offset, count) == expected[offset : offset + count]
    assert whole(laid_out) == expected


@each_format
def test_streaming_reads_no_content_twice(kind: Format) -> None:
    """A few whole frames. A tail shorter than one frame may be read again, for its checksum."""
    size = 13_000_000
    content = Memory(random.Random(1).randbytes(size))
    members = [Member("model.yaml", False, False, Memory(b"yaml")), Member("weights", False, False, content)]
    laid_out = laid_out_as(kind, members, 1)
    content.bytes_read = 0
    for offset in range(0, laid_out.length, 131_072):
        read_bytes(laid_out, offset, min(131_072, laid_out.length - offset))
    assert content.bytes_read <= size + 4_194_304


@each_format
def test_the_end_is_read_without_what_lies_before(kind: Format) -> None:
    content = Memory(bytes(40_000_000))
    members = [Member("model.yaml", False, False, Memory(b"yaml")), Member("weights", False, False, content)]
    laid_out = laid_out_as(kind, members, 1)
    read_bytes(laid_out, laid_out.length - 1024, 1024)
    assert content.bytes_read <= 4_194_304  # the content under the last block's checksum


def test_the_checksum_of_a_tar_is_put_together_from_its_members() -> None:
    members = golden.members()
    for member in members:
        if member.content is not None:
            assert isinstance(member.content, Memory)
            member.content.bytes_read = 0
    tar_gz = laid_out_as(TAR_GZ, members, golden.MTIME)
    trailer = read_bytes(tar_gz, tar_gz.length - 8, 8)
    tar = write_tar(golden.members(), golden.MTIME)
    assert trailer == zlib.crc32(tar).to_bytes(4, "little") + len(tar).to_bytes(4, "little")
    assert sum(member.content.bytes_read for member in members if isinstance(member.content, Memory)) == 0
