"""The SHA-256 of an archive, computed behind its reader or after it."""

import hashlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.errors import CancelledError
from bentofs.store.formats.read.background_sha256 import ArchiveDigest
from bentofs.store.formats.read.growing_file import WholeFile

_SECONDS = 20
_CONTENT = random.Random(1).randbytes(3_500_000)
_SUM = hashlib.sha256(_CONTENT).hexdigest()


class _Slow(WholeFile):
    """A file whose last byte comes only when released."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.may_end = threading.Event()

    def length(self) -> int:
        assert self.may_end.wait(_SECONDS)
        return super().length()


@pytest.fixture
def descriptor(tmp_path: Path) -> int:
    """A descriptor of the content. The test closes it."""
    path = tmp_path / "archive"
    path.write_bytes(_CONTENT)
    return os.open(path, os.O_RDONLY)


def _read(digest: ArchiveDigest, start: int = 0, end: int = len(_CONTENT)) -> None:
    buffer = memoryview(bytearray(100_000))
    while start < end:
        start += digest.read_into(buffer, start)


@pytest.mark.parametrize("later", [False, True])
def test_value(descriptor: int, later: bool) -> None:
    digest = ArchiveDigest(WholeFile(descriptor), later=later)
    _read(digest)
    digest.end()
    os.close(descriptor)  # the digester has its own
    assert digest.value() == _SUM


def test_what_no_reader_saw_is_in_it(descriptor: int) -> None:
    digest = ArchiveDigest(WholeFile(descriptor))
    _read(digest, 1_000_000, 2_000_000)
    digest.end()
    os.close(descriptor)
    assert digest.value() == _SUM


@pytest.mark.parametrize("early", [False, True])
def test_told_before_the_value_is_given(descriptor: int, early: bool) -> None:
    digest = ArchiveDigest(WholeFile(descriptor), later=True)
    told: list[str | None] = []
    if early:
        digest.when_ended(told.append)
    digest.end()
    assert digest.wait(_SECONDS)
    if not early:
        digest.when_ended(told.append)
    digest.value()
    assert told == [_SUM]
    os.close(descriptor)


def test_later_digests_nothing_while_the_archive_arrives(descriptor: int) -> None:
    arriving = _Slow(descriptor)
    digest = ArchiveDigest(arriving, later=True)
    _read(digest)
    assert not digest.wait(0.2)
    assert digest._done == 0
    arriving.may_end.set()
    digest.end()
    assert digest.value() == _SUM
    os.close(descriptor)


def test_given_up(descriptor: int) -> None:
    digest = ArchiveDigest(WholeFile(descriptor), later=True)
    told: list[str | None] = []
    digest.when_ended(told.append)
    digest.stop()
    with pytest.raises(CancelledError):
        digest.value()
    assert told == [None]
    os.close(descriptor)


def test_giving_up_what_is_made_changes_nothing(descriptor: int) -> None:
    digest = ArchiveDigest(WholeFile(descriptor))
    digest.end()
    digest.stop()
    assert digest.value() == _SUM
    os.close(descriptor)


def test_only_a_few_are_late(descriptor: int) -> None:
    """The digester waits for the others, so that deleted uploads do not pile up on the disk."""
    blocked = threading.Event()
    late = []
    for _ in range(4):
        digest = ArchiveDigest(WholeFile(descriptor), later=True)
        digest.when_ended(_waiting_for(blocked))
        digest.end()
        late.append(digest)
    more = ArchiveDigest(WholeFile(descriptor), later=True)
    more.end()
    assert more.wait(0)
    assert not any(digest.wait(0) for digest in late)
    blocked.set()
    assert all(digest.wait(_SECONDS) for digest in late)
    os.close(descriptor)


def _waiting_for(event: threading.Event) -> Callable[[str | None], None]:
    return lambda _sum: None if event.wait(_SECONDS) else pytest.fail("never told")


def test_a_file_that_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(_CONTENT)
    descriptor = os.open(path, os.O_RDONLY)
    arriving = _Slow(descriptor)
    arriving.may_end.set()
    digest = ArchiveDigest(arriving, later=False)
    _read(digest, 0, 100_000)
    arriving.length = lambda: len(_CONTENT) + 1  # type: ignore[method-assign]
    digest.end()
    with pytest.raises(OSError, match="shorter"):
        digest.value()
    os.close(descriptor)
