"""The index: kept, shared, and when broken, only a loss of time."""

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentofs.store.archives.index import Index, default_path
from bentofs.store.storage.base import Identity
from tests.store.at_once import in_processes, in_threads
from tests.store.damages import another_version, garbage
from tests.store.users import NOBODY, an_ordinary_user, folder_of_an_ordinary_user

ExpectLog = Callable[..., None]


def _identity(number: int) -> Identity:
    return Identity(1, number, 2, 3, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "index.sqlite"


def _works(index: Index) -> None:
    """Check all uses of an index whose past is unknown."""
    index.keep_checksum(_identity(77), 1234)
    index.flush()
    assert index.checksum(_identity(77)) == 1234
    index.keep_archive_digest("fingerprint/zip/1", "a" * 64)
    assert index.archive_digest("fingerprint/zip/1") == "a" * 64


def _knows(path: Path) -> bool:
    index = Index(path)
    try:
        return index.checksum(_identity(77)) == 1234 and index.archive_digest("fingerprint/zip/1") == "a" * 64
    finally:
        index.close()


def test_what_was_kept_is_there_in_the_next_process(path: Path) -> None:
    index = Index(path)
    assert index.checksum(_identity(77)) is None
    assert index.archive_digest("fingerprint/zip/1") is None
    _works(index)
    index.close()
    assert _knows(path)


def test_closing_writes_what_is_pending(path: Path) -> None:
    index = Index(path)
    for number in range(100):
        index.keep_checksum(_identity(number), number)
    index.close()
    index = Index(path)
    assert [index.checksum(_identity(number)) for number in range(100)] == list(range(100))
    index.close()


def test_many_checksums_are_asked_for_at_once(path: Path) -> None:
    index = Index(path)
    for number in range(0, 2500, 2):
        index.keep_checksum(_identity(number), number)
    index.flush()
    index.keep_checksum(_identity(7), 7)  # not written yet
    index._write("INSERT OR REPLACE INTO checksums VALUES (?, ?, {owner})", [("1:100:2:3:4", "no number")])
    wanted = [_identity(number) for number in range(2500)]
    found = {_identity(number): number for number in range(2500) if (number % 2 == 0 or number == 7) and number != 100}
    assert index.checksums(wanted) == found
    assert index.checksums([]) == {}
    index.close()


def test_it_is_private(path: Path) -> None:
    before = os.umask(0)
    try:
        index = Index(path)
        _works(index)
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
        index.close()
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert modes["index.sqlite"] == 0o600


def test_the_users_own_lies_in_the_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "bentofs" / "index.sqlite"


_times = st.integers(-(1 << 64), 1 << 65)  # ns: tmpfs, XFS and btrfs store years that do not fit in 64 bits of ns


def test_any_identity_a_file_system_may_give(path: Path) -> None:
    index = Index(path)

    @given(st.builds(Identity, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.just(9), _times, _times))
    def kept(identity: Identity) -> None:
        index.keep_checksum(identity, 2**32 - 1)
        index.flush()
        index._pending.clear()  # like the next process
        assert index.checksum(identity) == 2**32 - 1
        assert index.checksum(identity._replace(size=10)) is None

    kept()
    index.close()


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwritten_pages(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def _other_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript("DROP TABLE checksums; CREATE TABLE checksums (something TEXT)")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_bytes(b"")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _text(path: Path) -> None:
    path.write_text("hello")


_DAMAGES = [garbage, _truncated, _overwritten_pages, another_version, _other_tables, _folder, _fifo, _text]


@pytest.mark.parametrize("damage", _DAMAGES)
def test_damage_costs_only_time_and_is_told_once(
    path: Path, damage: Callable[[Path], None], expect_log: ExpectLog
) -> None:
    index = Index(path)
    _works(index)
    for number in range(3000):  # several pages
        index.keep_checksum(_identity(1000 + number), number)
    index.close()
    damage(path)
    expect_log("index.sqlite", 1)
    index = Index(path)
    assert index.checksum(_identity(77)) in (None, 1234)
    assert index.checksum(_identity(1000)) in (None, 0)
    assert index.checksum(_identity(3999)) in (None, 2999)
    _works(index)
    index.close()
    assert _knows(path), "a new one is kept in its place"


def test_damage_while_it_is_in_use(path: Path, expect_log: ExpectLog) -> None:
    index = Index(path)
    _works(index)
    with sqlite3.connect(path) as other:
        other.executescript("DROP TABLE checksums")
    expect_log("index.sqlite failed", 1)
    assert index.checksum(_identity(77)) is None
    _works(index)
    index.close()
    assert _knows(path)


@pytest.mark.parametrize("value", ["'text'", "-1", "4294967296", "1.5", "x'00'"])
def test_values_are_checked(path: Path, value: str) -> None:
    index = Index(path)
    _works(index)
    index.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE checksums SET crc32={value}")
        connection.execute("UPDATE archive_digests SET sha256='short'")
    index = Index(path)
    assert index.checksum(_identity(77)) is None
    assert index.archive_digest("fingerprint/zip/1") is None
    index.close()


def test_a_folder_that_cannot_be_made(expect_log: ExpectLog) -> None:
    expect_log("no index is kept", 1)
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        folder.chmod(0o500)
        index = Index(folder / "cache" / "index.sqlite")
        _works(index)
        index.close()
        assert os.listdir(folder) == []


def test_a_read_only_folder(expect_log: ExpectLog) -> None:
    expect_log("index", 1)
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        path = folder / "index.sqlite"
        index = Index(path)
        _works(index)
        index.close()
        path.chmod(0o400)
        folder.chmod(0o500)
        index = Index(path)
        _works(index)
        index.close()


@pytest.mark.root
def test_a_folder_of_another_user_is_not_touched(path: Path, expect_log: ExpectLog) -> None:
    assert os.geteuid() == 0, "only root can make another user's folder: run the tests as root"
    expect_log(f"belongs to user {NOBODY}", 1)
    path.parent.mkdir()
    os.chown(path.parent, NOBODY, NOBODY)
    index = Index(path)
    _works(index)
    index.close()
    assert os.listdir(path.parent) == []


_WORKER = """
import logging, sys, time
from pathlib import Path
from bentofs.store.archives.index import Index
from bentofs.store.storage.base import Identity
logging.basicConfig(format="%(levelname)s %(message)s")
path, number, start = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
time.sleep(max(0, start - time.time()))  # all workers begin at once
index = Index(path)
for count in range(60):
    index.keep_checksum(Identity(number, count, 1, 1, 1), count)
    index.keep_archive_digest(f"{number}/{count}", "c" * 64)
    index.flush()
index.close()
"""


def test_several_processes_at_once(path: Path) -> None:
    in_processes(_WORKER, path, 4)
    index = Index(path)
    for number in range(4):
        assert [index.checksum(Identity(number, count, 1, 1, 1)) for count in range(60)] == list(range(60))
        assert all(index.archive_digest(f"{number}/{count}") for count in range(60))
    index.close()


def test_another_process_that_holds_it_delays_no_reader(path: Path) -> None:
    index = Index(path)
    _works(index)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        assert index.checksum(_identity(77)) == 1234
        assert index.checksum(_identity(5)) is None
        assert time.monotonic() - started < 4
        other.execute("ROLLBACK")
    index.close()


def test_from_several_threads(path: Path) -> None:
    index = Index(path)

    def work(device: int) -> None:
        for number in range(700):
            index.keep_checksum(Identity(device, number, 1, 1, 1), number)
            assert index.checksum(Identity(device, number // 2, 1, 1, 1)) == number // 2

    in_threads(work, range(4))
    index.close()
