"""While the system lets no more threads begin: nobody waits for a thread that will not come, and nothing leaks.

`tests/mount/kernel/test_ordinary_user.py` has a mount with a real limit.
"""

import os
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bentofs.mount.daemon.ending import End
from bentofs.mount.daemon.model_counter import ModelCounter
from bentofs.mount.daemon.notify import ServiceManager
from bentofs.mount.incoming.staging_run import Slots, Stager
from bentofs.mount.kernel.libfuse2.unlinker import Unlinker
from bentofs.mount.kernel.native.interrupts import Interrupts
from bentofs.store.archives.index import Index
from bentofs.store.formats.pieces import Zeros
from bentofs.store.formats.read.background_sha256 import ArchiveDigest
from bentofs.store.formats.read.growing_file import WholeFile
from bentofs.store.formats.write import chunk_cache
from bentofs.store.formats.write.chunk_maker import ChunkMaker
from bentofs.store.formats.write.chunks import Codec
from bentofs.store.staging.fsync_batch import Syncer
from bentofs.store.staging.hashing import Digester
from bentofs.store.storage.base import Identity
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.pinned import OpenFiles, PinnedFile
from bentofs.store.storage.readahead import ReadAhead
from bentofs.store.util.memory_budget import MemoryBudget
from bentofs.store.util.threads import handed_over, run_beside, started
from tests.harness import wait_until
from tests.no_threads import NoThreads
from tests.store.content import whole
from tests.store.formats.write.test_compressed import _chunked
from tests.store.storage.test_readahead import Remote


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_thread(no_threads: NoThreads) -> None:
    done: list[str] = []
    with no_threads():
        assert not started(threading.Thread(target=lambda: done.append("thread")))
        run_beside(lambda: done.append(threading.current_thread().name), "beside")
    assert done == [threading.current_thread().name]
    run_beside(lambda: done.append(threading.current_thread().name), "beside")
    wait_until(lambda: done[1:] == ["beside"], 10, "it is done in a thread of its own")


def test_work_for_a_pool_is_done_once(no_threads: NoThreads) -> None:
    done: list[int] = []

    def work(number: int) -> Callable[[], None]:
        return lambda: done.append(number)

    def waits() -> None:
        goes_on.wait(20)

    goes_on = threading.Event()
    with ThreadPoolExecutor(2) as pool, no_threads():
        assert not handed_over(pool, work(1)), "there is no thread yet"
    with ThreadPoolExecutor(2) as pool:
        assert handed_over(pool, waits)
        with no_threads():
            assert not handed_over(pool, work(2)), "the only one is busy"
        goes_on.set()
        assert handed_over(pool, work(3))
    assert done == [3], "the caller does what the pool refused"


def test_readers_of_chunks(no_threads: NoThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_cache, "_IDLE_SECONDS", 0.1)
    maker = ChunkMaker(lambda name: pytest.fail(f"{name}"), MemoryBudget())
    codec = Codec("zlib", 100_000, lambda view, _number, _before: zlib.compress(view, 1))
    laid_out = _chunked(maker, Zeros(1_000_000), bytes(1_000_000), codec)
    expected = b"".join(zlib.compress(bytes(100_000), 1) for _ in range(10))
    with no_threads():
        assert whole(laid_out) == expected
        assert whole(laid_out) == expected
    maker.cache.forget(("content", codec.name))
    assert whole(laid_out) == expected
    wait_until(lambda: not maker.cache.size, 20, "the memory is given back")
    maker.close()


def test_readers_of_a_bucket(no_threads: NoThreads) -> None:
    remote = Remote([4_000_000])
    ahead = ReadAhead(remote.fetch, 4 << 20)
    with no_threads():
        for offset in range(0, 2_000_000, 100_000):
            remote.read(ahead, 0, offset, 100_000)
    for offset in range(0, 4_000_000, 100_000):
        remote.read(ahead, 0, offset, 100_000)


def test_files_are_closed_later(no_threads: NoThreads, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(2_000_000))
    storage, open_files, before = LocalStorage(str(tmp_path)), OpenFiles(seconds=0.1), _descriptors()
    files = [PinnedFile(storage, open_files, name, Identity.of((tmp_path / name).stat())) for name in ("one", "two")]
    with no_threads():
        files[0].open()
    files[1].open()
    wait_until(lambda: _descriptors() <= before, 20, "both are closed")


def test_the_index_is_written_later(no_threads: NoThreads, tmp_path: Path) -> None:
    index, other = Index(tmp_path / "index.sqlite"), Index(tmp_path / "index.sqlite")
    one, two = Identity(1, 1, 1, 1, 1), Identity(1, 2, 1, 1, 1)
    with no_threads():
        index.keep_checksum(one, 1)
    index.keep_checksum(two, 2)
    wait_until(lambda: other.checksums([one, two]) == {one: 1, two: 2}, 20, "both are in it")
    index.close()
    other.close()


def test_an_upload_that_arrives(no_threads: NoThreads, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"x")
    descriptor = os.open(tmp_path / "upload", os.O_RDONLY)
    stager, before = Stager(lambda _arriving, _found: pytest.fail("it began"), Slots(MemoryBudget())), _descriptors()
    with no_threads():
        for _ in range(5):  # more than there are slots
            assert stager.early(descriptor) is None
            with pytest.raises(RuntimeError, match="start new thread"):
                stager.late(descriptor, 1)
            with pytest.raises(RuntimeError, match="start new thread"):
                ArchiveDigest(WholeFile(descriptor))
    assert _descriptors() == before
    os.close(descriptor)


def test_staged_files_are_synced_and_digested(no_threads: NoThreads, tmp_path: Path) -> None:
    folder, before = os.open(tmp_path, os.O_RDONLY), _descriptors()
    syncer, digester = Syncer(folder), Digester()
    with no_threads():
        for number in range(40):  # more than may wait
            descriptor = os.open(tmp_path / f"{number}", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, bytes(2 << 20) if number == 0 else b"x")
            syncer.file(descriptor, os.fstat(descriptor).st_size)
        with pytest.raises(RuntimeError, match="start new thread"):
            digester.hand_over(lambda: None)
    syncer.finish()
    digester.drain()
    digester.close()
    assert _descriptors() == before
    os.close(folder)


def test_models_are_counted_later(no_threads: NoThreads) -> None:
    counter = ModelCounter(lambda: 7, 60.0)
    with no_threads():
        assert counter.number() is None
    assert counter.number() == 7


def test_a_file_is_detached_later(no_threads: NoThreads, tmp_path: Path) -> None:
    late: list[tuple[str, bool]] = []
    (tmp_path / "file").touch()
    unlinker = Unlinker(str(tmp_path))
    unlinker.begin(lambda path, detached: late.append((path, detached)))
    with no_threads():
        assert unlinker.detach("/file") is False
        unlinker.detach_soon("/file")
    assert late == [("/file", False)]
    assert unlinker.detach("/file")
    unlinker.stop()


def test_a_request_is_interrupted_later(no_threads: NoThreads) -> None:
    interrupts = Interrupts(lambda _unique: None)
    with no_threads():
        interrupts.interrupt(1)
        interrupts.interrupt(2)
    assert interrupts._asked


@pytest.mark.expect_log("no thread can begin that would limit how long the end takes")
def test_a_signal_ends_a_daemon(no_threads: NoThreads) -> None:
    end = End(ServiceManager(), "ending")
    with no_threads():
        end.begin(True)
    end.is_there()
