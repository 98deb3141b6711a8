"""How files are shown that are no model: sizes, times, and the offset at which an appending program resumes."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bentofs.mount.incoming.append_place import AppendPlace
from bentofs.mount.incoming.undecided import is_undecided, set_undecided, shown_mtime_ns, shown_size


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
    os.write(descriptor, random.Random(size).randbytes(size))
    assert shown_size(descriptor) == shown


@pytest.mark.parametrize(
    ("end", "hidden"),
    [
        (b"x" + b"\0" * 511, 512),
        (b"x" + b"\0" * 512, 513),
        (b"x" + b"\0" * 10_240, 10_241),  # the end of a tar
        (b"x" + b"\0" * 100_000, 100_001),
        (b"\0" * (1 << 21), 5000 + (1 << 21)),  # too long a run: all is hidden
        (b"\0\0\x80\x3f" * 1000, 511),  # float32 ones
        (b"x" * 200 + b"12345678" * 64, 511),
        (b"y" * 100 + bytes(range(256)) * 4, 511),
        (random.Random(1).randbytes(512) * 3, 511),  # records of 512 bytes
        (random.Random(2).randbytes(511) * 3, 512),
        (b"0123456789" * 200, 512),  # 512 is no multiple of 10
    ],
)
def test_the_hidden_bytes_are_none_that_the_file_may_go_on_with(descriptor: int, end: bytes, hidden: int) -> None:
    content = random.Random(3).randbytes(5000) + end
    os.write(descriptor, content)
    assert len(content) - shown_size(descriptor) == hidden


@pytest.mark.parametrize(("mtime", "shown"), [(1_700_000_000, 0), (1, 0), (0, -1), (-7, -8)])
def test_shown_older_than_its_source(descriptor: int, mtime: int, shown: int) -> None:
    os.utime(descriptor, (mtime, mtime))
    assert shown_mtime_ns(os.fstat(descriptor)) == shown * 1_000_000_000


def resume(descriptor: int, source: bytes, chunk: int) -> None:
    """Append to a file like a program that resumes at the size that it was shown."""
    shown = shown_size(descriptor)
    append(descriptor, source[shown:], chunk)


def append(descriptor: int, sent: bytes, chunk: int, kernels: int | None = None) -> None:
    """Append to a file like a program with O_APPEND. `kernels`: the kernel's offset, if it knows the true size."""
    place = AppendPlace()
    offset = shown_size(descriptor) if kernels is None else kernels
    for start in range(0, len(sent), chunk):
        view = memoryview(sent)[start : start + chunk]
        for piece, at in place.pieces(descriptor, view, offset, is_short=not start):
            assert os.pwrite(descriptor, piece, at) == len(piece)
        offset += len(view)


WORDS = (
    b"\0",
    b"\xff",
    b"\0\0\x80\x3f",
    b"\x80\x3f",
    b"0123456789",
    bytes(range(256)),
    random.Random(4).randbytes(300),
)
CONTENTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(WORDS), st.integers(1, 4000)).map(lambda run: run[0] * (run[1] // len(run[0]) + 1)),
        st.integers(0, 2**32).map(lambda seed: random.Random(seed).randbytes(700)),
    ),
    min_size=2,
    max_size=5,
).map(lambda parts: b"".join([b"model.yaml of an archive", *parts]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=CONTENTS, cut=st.floats(0.01, 0.99), chunk=st.sampled_from([1, 7, 511, 512, 4096, 1 << 20]))
def test_appended_bytes_find_their_place(descriptor: int, content: bytes, cut: float, chunk: int) -> None:
    """No pattern that goes on over the cut misleads a program, be it one that resumes or one that does not look."""
    first = int(len(content) * cut) + 1
    assume(len(content) - first >= 512)  # fewer bytes that repeat hidden ones count as sent again
    for work in (resume, append):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content[:first], 0)
        work(descriptor, content if work is resume else content[first:], chunk)
        assert os.pread(descriptor, len(content) + 1, 0) == content


def test_a_kernel_that_knows_the_true_size(descriptor: int) -> None:
    content = random.Random(5).randbytes(4000)
    os.write(descriptor, content[:2000])
    append(descriptor, content[2000:], 512, kernels=2000)
    assert os.pread(descriptor, 5000, 0) == content


def test_a_program_that_resumes_and_is_cut_off_changes_nothing(descriptor: int) -> None:
    content = random.Random(6).randbytes(4000)
    os.write(descriptor, content)
    append(descriptor, content[shown_size(descriptor) :][:100], 10)
    assert os.pread(descriptor, 5000, 0) == content


def test_a_file_that_is_truncated_while_bytes_are_compared(descriptor: int) -> None:
    content = random.Random(7).randbytes(4000)
    os.write(descriptor, content)
    place, offset = AppendPlace(), shown_size(descriptor)
    for sent in (content[offset : offset + 10], b"new bytes"):
        for piece, at in place.pieces(descriptor, memoryview(sent), offset, is_short=True):
            os.pwrite(descriptor, piece, at)
        if sent != b"new bytes":
            os.ftruncate(descriptor, 0)
    assert os.pread(descriptor, 100, 0) == b"new bytes"
