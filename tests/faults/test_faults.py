"""Faults under a mount: the daemon, the store, the index fail. All promises still hold afterwards."""

import errno
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import Mounted, make_model, run, unmount_lazily, wait_until
from tests.waiting import let_a_change_be_seen, wait_until_settled


def test_killed_daemon_gives_errors_never_an_early_end(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w.bin": os.urandom(20_000_000)})
    mount = mounted(store, own_process=True)
    path = mount.archive("m:v1", ".tar")
    file = os.open(path, os.O_RDONLY)
    assert len(os.read(file, 100_000)) == 100_000
    os.kill(mount.pid, signal.SIGKILL)
    mount.process.wait(10)
    with pytest.raises(OSError, match=r"endpoint|abort|Input/output"):
        os.pread(file, 100_000, 15_000_000)
    with suppress(OSError):  # close fails too
        os.close(file)
    with pytest.raises(OSError, match="endpoint"):
        path.stat()
    unmount_lazily(mount.path)
    mount.kill()
    mount.start()  # nothing is left that hinders it
    assert path.stat().st_size > 20_000_000


def test_truncated_source(store: Path, mounted: Callable[..., Mounted]) -> None:
    """A file that is cut short under an open archive gives ESTALE at once, whatever is still in the file."""
    folder = make_model(store, "m:v1", {"w.bin": os.urandom(8_000_000)})
    mount = mounted(store)
    for suffix in (".bentomodel", ".tar", ".tar.gz", ".zip"):
        with (folder / "w.bin").open("wb") as source:
            source.write(os.urandom(8_000_000))
        let_a_change_be_seen()
        path = mount.archive("m:v1", suffix)
        size = path.stat().st_size
        with path.open("rb", buffering=0) as file:
            assert file.read(1000)
            os.truncate(folder / "w.bin", 5_000_000)
            for offset in (2_000_000, 6_000_000, size - 3_000_000):
                file.seek(offset)
                with pytest.raises(OSError, match="Stale") as raised:
                    file.read(1000)
                assert raised.value.errno == errno.ESTALE


def test_store_vanishes_and_comes_back(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store)
    mount.expect_log("cannot be read: No such file or directory")
    assert mount.shows("m:v1")
    aside = store.with_name("aside")
    store.rename(aside)
    let_a_change_be_seen()
    with pytest.raises(OSError, match="Input/output"):
        os.listdir(mount.path / "models")
    assert os.listdir(mount.path)  # everything else works on
    aside.rename(store)
    let_a_change_be_seen()
    assert (mount.path / "models/m/v1/files/w").read_bytes() == b"w"
    shutil.rmtree(store)
    make_model(store, "n:v1", {"w": b"n"})
    let_a_change_be_seen()
    assert os.listdir(mount.path / "models") == ["n"]


def _index(mount: Mounted) -> Path:
    return mount.base / "cache" / "bentofs" / "index.sqlite"


def test_index_lost_while_mounted(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w": os.urandom(1_000_000)})
    mount = mounted(store)
    mount.allow_log("the index .* failed|damaged")
    first = mount.archive("m:v1", ".zip").read_bytes()
    shutil.rmtree(_index(mount).parent)
    make_model(store, "n:v1", {"w": os.urandom(1_000_000)})
    let_a_change_be_seen()
    run("unzip", "-t", mount.archive("n:v1", ".zip"))
    mount.stop()
    mount.start()
    assert mount.archive("m:v1", ".zip").read_bytes() == first


@pytest.mark.parametrize("damage", [b"", b"garbage" * 10_000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_index_damaged_between_mounts(store: Path, mounted: Callable[..., Mounted], damage: bytes) -> None:
    make_model(store, "m:v1", {"w": os.urandom(1_000_000)})
    mount = mounted(store)
    sums = (mount.path / "models/m/v1/SHA256SUMS").read_bytes()
    archive = mount.archive("m:v1", ".zip").read_bytes()
    mount.stop()
    _index(mount).write_bytes(damage)
    for suffix in ("-wal", "-shm"):
        _index(mount).with_name(f"index.sqlite{suffix}").unlink(missing_ok=True)
    if damage:
        mount.expect_log("the index .* is damaged .* will be measured again")
    mount.start()
    assert mount.archive("m:v1", ".zip").read_bytes() == archive
    assert (mount.path / "models/m/v1/SHA256SUMS").read_bytes() == sums
    mount.stop()
    mount._expectations.clear()
    mount.start()  # the new index is good
    assert mount.archive("m:v1", ".zip").read_bytes() == archive


def test_wrong_checksums_in_the_index_of_another_content(store: Path, mounted: Callable[..., Mounted]) -> None:
    """A file restored with its old mtime and size is known by its ctime: the index is not used for it."""
    folder = make_model(store, "m:v1", {"w": b"a" * 100_000})
    wait_until_settled(store)
    mount = mounted(store)
    mount.archive("m:v1", ".zip").read_bytes()
    mount.stop()
    with sqlite3.connect(_index(mount)) as connection:
        assert connection.execute("SELECT count(*) FROM checksums").fetchone()[0] >= 2
    connection.close()
    stamp = (folder / "w").stat().st_mtime_ns
    (folder / "w").write_bytes(b"b" * 100_000)
    os.utime(folder / "w", ns=(stamp, stamp))
    mount.start()
    run("unzip", "-t", mount.archive("m:v1", ".zip"))


def test_two_mounts_share_one_index(store: Path, tmp_path: Path) -> None:
    for number in range(20):
        make_model(store, f"m{number}:v1", {"a": os.urandom(200_000), "b": os.urandom(100_000)})
    wait_until_settled(store)
    shared = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    with (
        Mounted(store, tmp_path / "one", environment=shared) as one,
        Mounted(store, tmp_path / "two", environment=shared) as two,
    ):
        for number in range(20):
            run("unzip", "-t", one.archive(f"m{number}:v1", ".zip"))
            run("unzip", "-t", two.archive(f"m{19 - number}:v1", ".zip"))
        sums = [(mount.path / "models/m3/v1/SHA256SUMS").read_bytes() for mount in (one, two)]
        assert sums[0] == sums[1]


def test_a_deleted_model_gives_its_room_back(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {f"{number}.bin": os.urandom(100_000) for number in range(20)})
    mount = mounted(store)
    for suffix in (".tar", ".zip"):
        mount.archive("m:v1", suffix).read_bytes()
    shutil.rmtree(store / "m")

    def held() -> list[str]:
        links = [os.readlink(entry) for entry in Path(f"/proc/{mount.pid}/fd").iterdir() if entry.is_symlink()]
        return [link for link in links if str(store) in link]

    wait_until(lambda: not held(), 20, "no file of the deleted model is open")


def test_index_held_by_another_process(store: Path, mounted: Callable[..., Mounted]) -> None:
    """Readers go on, and the mount ends on request, while another process holds the index for ever."""
    make_model(store, "m:v1", {f"{number}": os.urandom(1000) for number in range(2000)})
    wait_until_settled(store)
    mount = mounted(store)
    holder = sqlite3.connect(_index(mount), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        run("unzip", "-tq", mount.archive("m:v1", ".zip"), seconds=30)
        begun = time.monotonic()
        mount.stop()
        assert time.monotonic() - begun < 10
    finally:
        holder.close()
    assert not list(_index(mount).parent.glob("*.damaged*"))
