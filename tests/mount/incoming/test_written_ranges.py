"""The written bytes of an upload: against a plain list of bytes, over kills, in bounds."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.mount.incoming import written_ranges
from bentofs.mount.incoming.written_ranges import Skips, WrittenRanges
from bentofs.store.errors import TooBigError

LENGTH = 40

Step = tuple[str, int, int]
steps: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(["write", "zeros", "resize", "kill"]), st.integers(0, LENGTH), st.integers(1, 8)),
    max_size=25,
)


@given(steps)
def test_as_a_list_of_bytes(done: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/1"
        written = WrittenRanges(path, 0, is_new=True)
        flags: list[bool] = []
        for what, at, count in done:
            if what == "kill":
                written.close()
                written = WrittenRanges(path, len(flags))
            elif what == "resize":
                written.before_resize(at)
                flags = (flags + [False] * at)[:at]
            else:
                view = memoryview((b"\0" if what == "zeros" else b"x") * count)
                allocates = written.is_allocation(at, view)
                assert not allocates or (what == "zeros" and not any(flags))
                written.before_write(at, allocates=allocates)
                written.after_write(at, view, allocates=allocates)
                flags += [False] * (at + count - len(flags))
                flags[at : at + count] = [not allocates] * count
            expected = (flags.index(False), flags.count(False)) if False in flags else None
            assert written.gap() == expected
            assert os.path.exists(path) == (expected is not None)
        written.close()


def write(written: WrittenRanges, start: int, content: bytes) -> None:
    view = memoryview(content)
    allocates = written.is_allocation(start, view)
    written.before_write(start, allocates=allocates)
    written.after_write(start, view, allocates=allocates)


@pytest.fixture
def written(tmp_path: Path) -> WrittenRanges:
    return WrittenRanges(str(tmp_path / "1"), 0, is_new=True)


def test_in_order_nothing_is_on_disk(written: WrittenRanges, tmp_path: Path) -> None:
    for start in range(0, 1000, 10):
        write(written, start, b"x" * 10)
        assert list(tmp_path.iterdir()) == []
    assert written.gap() is None


def test_zeros_that_make_room_until_other_bytes_come(written: WrittenRanges) -> None:
    write(written, 0, bytes(10))
    write(written, 10, bytes(10))
    assert written.gap() == (0, 20)
    write(written, 0, b"head")
    write(written, 4, bytes(16))
    assert written.gap() is None


def test_zeros_elsewhere_are_content(written: WrittenRanges) -> None:
    """Zeros written elsewhere are content. Example: the end of a tar that comes first."""
    write(written, 30, bytes(10))
    write(written, 0, b"x" * 30)
    assert written.gap() is None


@pytest.mark.parametrize("which", Skips)
def test_what_a_writer_leaves_out_on_purpose(written: WrittenRanges, which: Skips) -> None:
    write(written, 0, b"x" * 10)
    write(written, 20, b"x" * 10)
    written.before_resize(40)
    written.accept_skipped(which)
    assert written.gap() == ((10, 20) if which is Skips.AS_RSYNC else None)


@pytest.mark.parametrize("case", ["backwards", "grown first", "nothing else", "zeros at the border"])
def test_what_no_writer_leaves_out_on_purpose(written: WrittenRanges, case: str) -> None:
    which = Skips.ALL
    if case == "backwards":
        write(written, 10, b"x" * 10)
        write(written, 0, b"x" * 5)
    elif case == "grown first":
        written.before_resize(20)
        write(written, 0, b"x" * 10)
    elif case == "nothing else":
        written.before_resize(20)
        which = Skips.BEHIND_BYTES
    else:
        write(written, 0, b"x" * 10)
        write(written, 15, b"x" * 5 + bytes(5))
        which = Skips.AS_RSYNC
    written.accept_skipped(which)
    assert written.gap() is not None


def test_zeros_left_out_as_rsync_leaves_them_out_in_place(written: WrittenRanges) -> None:
    write(written, 0, b"x" * 10)
    write(written, 15, b"x" * 5)
    written.skip(20, 30)
    written.before_resize(30)
    written.accept_skipped(Skips.AS_RSYNC)
    assert written.gap() is None


def test_a_bound_on_ranges(written: WrittenRanges, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the bound, a range that touches known ones is still taken. Then there is room again."""
    monkeypatch.setattr(written_ranges, "MOST_RANGES", 3)
    for start in (10, 30, 50):
        write(written, start, b"x" * 10)
    with pytest.raises(TooBigError, match="more than 3 pieces"):
        write(written, 70, b"x" * 10)
    assert written.gap() == (0, 50)
    write(written, 20, b"x" * 10)
    write(written, 70, b"x" * 10)
    write(written, 0, b"x" * 10)
    write(written, 40, b"x" * 10)
    write(written, 60, b"x" * 10)
    assert written.gap() is None


def test_the_file_of_ranges_stays_small(written: WrittenRanges, tmp_path: Path) -> None:
    for start in range(10_000, 0, -1):
        write(written, start, b"x")
    assert (tmp_path / "1").stat().st_size < 100_000
    written.close()
    assert WrittenRanges(str(tmp_path / "1"), 10_001).gap() == (0, 1)


def test_a_torn_file_of_ranges(written: WrittenRanges, tmp_path: Path) -> None:
    """A full disk or a power loss leaves a torn file. Ranges that are not in it count as not written."""
    write(written, 10, b"x" * 10)
    write(written, 30, b"x" * 10)
    written.close()
    os.truncate(tmp_path / "1", 24)
    again = WrittenRanges(str(tmp_path / "1"), 40)
    assert again.gap() == (0, 30)
    write(again, 30, b"x" * 10)
    again.close()
    assert WrittenRanges(str(tmp_path / "1"), 40).gap() == (0, 20)


def test_ranges_of_a_file_that_had_the_inode_before(written: WrittenRanges, tmp_path: Path) -> None:
    write(written, 10, b"x" * 10)
    written.close()
    again = WrittenRanges(str(tmp_path / "1"), 0, is_new=True)
    write(again, 0, b"x" * 10)
    assert again.gap() is None
    assert list(tmp_path.iterdir()) == []
