"""How files are shown that are no model: sizes, times, and the offset at which an appending program resumes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.mount.incoming.undecided import append_offset, is_undecided, set_undecided, shown_mtime_ns, shown_size


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    yield opened
    os.close(opened)


def test_the_mark_is_kept_beside_the_mode(descriptor: int) -> None:
    os.fchmod(descriptor, 0o700)
    for undecided in (True, True, False, False):
        set_undecided(descriptor, undecided)
        look = os.fstat(descriptor)
        assert is_undecided(look) is undecided
        assert look.st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("size", "shown"), [(0, 0), (1, 0), (2, 1), (100, 50), (1023, 511), (1024, 512), (5000, 4488)])
def test_shown_shorter_unless_it_is_empty(descriptor: int, size: int, shown: int) -> None:
    os.truncate(descriptor, size)
    assert shown_size(os.fstat(descriptor)) == shown


@pytest.mark.parametrize(("mtime", "shown"), [(1_700_000_000, 0), (1, 0), (0, -1), (-7, -8)])
def test_shown_older_than_its_source(descriptor: int, mtime: int, shown: int) -> None:
    os.utime(descriptor, (mtime, mtime))
    assert shown_mtime_ns(os.fstat(descriptor)) == shown * 1_000_000_000


@pytest.mark.parametrize(
    ("offset", "sent", "belongs"),
    [
        (1488, slice(1488, 4000), 1488),  # resumed at the shown size
        (1488, slice(1488, 1500), 1488),  # the same, in small pieces
        (1488, slice(2000, 4000), 2000),  # appended without a look
        (1488, slice(2000, 2003), 2000),
        (2000, slice(2000, 4000), 2000),  # by a kernel that knows the true size
    ],
)
def test_where_a_program_that_appends_goes_on(descriptor: int, offset: int, sent: slice, belongs: int) -> None:
    content = os.urandom(4000)
    os.write(descriptor, content[:2000])
    assert append_offset(descriptor, memoryview(content[sent]), offset) == belongs
