"""CRC-32s of files: computed once, kept, and never of other bytes than those that were read."""

import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bentofs.store.archives.crc32_cache import MeasuredFile, Measurements
from bentofs.store.archives.index import Index
from bentofs.store.errors import SourceChangedError
from bentofs.store.formats.pieces import read_bytes
from bentofs.store.storage.base import Identity
from bentofs.store.storage.local import LocalStorage
from bentofs.store.storage.local_file import LocalFile
from bentofs.store.storage.pinned import OpenFiles, PinnedFile
from tests.waiting import wait_until_settled

_CONTENT = random.Random(1).randbytes(1_000_000)


class CountingStorage(LocalStorage):
    """The real storage; it counts opens and bytes read, and calls back before each."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.bytes_read = 0
        self.opens = 0
        self.before_open: Callable[[], None] = lambda: None
        self.before_read: Callable[[], None] = lambda: None

    def open_file(self, source: str, identity: Identity) -> Any:  # a LocalFile that counts
        self.opens += 1
        self.before_open()
        return _CountedFile(self, super().open_file(source, identity))

    def read_whole(self, files: Iterable[tuple[str, Identity, memoryview]]) -> None:
        for source, identity, view in files:
            self.open_file(source, identity).read_into([view], 0)


class _CountedFile:
    def __init__(self, storage: CountingStorage, file: LocalFile) -> None:
        self._storage = storage
        self._file = file

    def read_into(self, views: Sequence[memoryview], offset: int) -> None:
        self._storage.before_read()
        self._file.read_into(views, offset)
        self._storage.bytes_read += sum(map(len, views))


@pytest.fixture
def weights(store: Path) -> Path:
    """A file that has not changed for long, as far as its ctime can tell."""
    path = store / "weights"
    path.write_bytes(_CONTENT)
    wait_until_settled(path)
    return path


@pytest.fixture
def storage(store: Path) -> CountingStorage:
    return CountingStorage(store)


def _pinned(storage: CountingStorage, path: str = "weights") -> PinnedFile:
    return PinnedFile(storage, OpenFiles(), path, storage.status(path).identity)


def test_computed_once_and_kept_over_processes(storage: CountingStorage, weights: Path, tmp_path: Path) -> None:
    for expected in (len(_CONTENT), 0, 0):
        index = Index(tmp_path / "cache" / "index.sqlite")
        measurements = Measurements(index)
        storage.bytes_read = 0
        for _ in range(2):
            assert measurements.crc32(_pinned(storage)) == zlib.crc32(_CONTENT)
        assert storage.bytes_read == expected
        index.close()
    assert weights.exists()


def test_another_content_gets_another_crc(storage: CountingStorage, weights: Path, index: Index) -> None:
    measurements = Measurements(index)
    first = measurements.crc32(_pinned(storage))
    look = weights.stat()
    with weights.open("r+b") as file:
        file.write(b"other bytes")
    os.utime(weights, ns=(look.st_atime_ns, look.st_mtime_ns))
    second = measurements.crc32(_pinned(storage))
    assert second == zlib.crc32(weights.read_bytes()) != first


def test_a_file_just_written_is_not_trusted_beyond_this_process(
    storage: CountingStorage, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "fresh").write_bytes(b"fresh")
    now = (store / "fresh").stat().st_ctime_ns + 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    index = Index(tmp_path / "cache" / "index.sqlite")
    Measurements(index).crc32(_pinned(storage, "fresh"))
    served = MeasuredFile(Measurements(index), _pinned(storage, "fresh"))
    read_bytes(served, 0, 5)
    served.crc32()
    assert index.checksum(_pinned(storage, "fresh").identity) is None
    now += 100_000_000
    Measurements(index).crc32(_pinned(storage, "fresh"))
    assert index.checksum(_pinned(storage, "fresh").identity) == zlib.crc32(b"fresh")
    index.close()


def test_a_coarse_clock_is_trusted_later(storage: CountingStorage, weights: Path, index: Index) -> None:
    """ext3, FAT and some servers count in seconds: all their timestamps end in nine zeros."""
    identity = storage.status("weights").identity
    whole_second = identity.ctime_ns // 10**9 * 10**9
    coarse = identity._replace(ctime_ns=whole_second)
    measurements = Measurements(index)
    measurements.keep_crc32(coarse, 7, whole_second + 1_500_000_000)
    assert index.checksum(coarse) is None
    measurements.keep_crc32(coarse, 7, whole_second + 2_500_000_000)
    assert index.checksum(coarse) == 7
    assert weights.exists()


@pytest.mark.parametrize("how", ["edit", "truncate", "replace", "delete"])
def test_a_change_in_the_middle_is_an_error_and_nothing_is_kept(
    storage: CountingStorage, weights: Path, index: Index, how: str
) -> None:
    reads = 0

    def change() -> None:
        nonlocal reads
        reads += 1
        if reads != 2:
            return
        if how == "edit":
            with weights.open("r+b") as file:
                file.write(b"X")
        elif how == "truncate":
            os.truncate(weights, 300_000)
        elif how == "replace":
            other = weights.with_name("other")
            other.write_bytes(bytes(len(_CONTENT)))
            other.replace(weights)
        else:
            weights.unlink()

    storage.before_read = change
    pinned = _pinned(storage)
    measurements = Measurements(index)
    with pytest.raises(SourceChangedError):
        measurements.crc32(pinned)
    assert measurements.known_crc32(pinned.identity) is None
    served = MeasuredFile(measurements, pinned)
    with pytest.raises(SourceChangedError):
        served.crc32()


def test_many_threads_wait_for_one_measure(storage: CountingStorage, weights: Path, index: Index) -> None:
    measurements = Measurements(index)
    storage.before_read = lambda: time.sleep(0.01)  # a slow disk
    pinned = [_pinned(storage) for _ in range(8)]
    found: list[int] = []
    threads = [threading.Thread(target=lambda file=file: found.append(measurements.crc32(file))) for file in pinned]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [zlib.crc32(_CONTENT)] * 8
    assert storage.bytes_read == len(_CONTENT)
    assert weights.exists()


class TestWhileServing:
    """A file that is served learns its CRC from the served bytes."""

    @pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled", "twice"])
    def test_nothing_is_read_again(self, storage: CountingStorage, weights: Path, index: Index, order: str) -> None:
        served = MeasuredFile(Measurements(index), _pinned(storage))
        offsets = list(range(0, len(_CONTENT), 50_000))
        if order == "backwards":
            offsets.reverse()
        elif order == "shuffled":
            random.Random(2).shuffle(offsets)
        elif order == "twice":
            offsets += offsets
        for offset in offsets:
            assert read_bytes(served, offset, 50_000) == _CONTENT[offset : offset + 50_000]
        storage.bytes_read = 0
        assert served.crc32() == zlib.crc32(_CONTENT)
        assert Measurements(index).crc32(_pinned(storage)) == zlib.crc32(_CONTENT)
        assert storage.bytes_read == 0
        assert weights.exists()

    def test_only_what_was_not_served_is_read(self, storage: CountingStorage, weights: Path, index: Index) -> None:
        served = MeasuredFile(Measurements(index), _pinned(storage))
        read_bytes(served, 0, 400_000)
        read_bytes(served, 600_000, 100_000)
        storage.bytes_read = 0
        assert served.crc32() == zlib.crc32(_CONTENT)
        assert storage.bytes_read == 500_000
        assert weights.exists()

    @pytest.mark.parametrize("order", ["ahead", "behind"])
    def test_what_was_read_ahead_is_not_read_again(
        self, storage: CountingStorage, weights: Path, index: Index, order: str
    ) -> None:
        """Served bytes are not read again, either. The order does not matter."""
        served = MeasuredFile(Measurements(index), _pinned(storage))
        if order == "behind":
            read_bytes(served, 0, 300_000)
        for _ in range(3):
            assert served.learn_ahead(50_000)
        if order == "ahead":
            read_bytes(served, 150_000, 300_000)
        storage.bytes_read = 0
        assert served.crc32() == zlib.crc32(_CONTENT)
        assert storage.bytes_read == 550_000
        assert Measurements(index).crc32(_pinned(storage)) == zlib.crc32(_CONTENT)
        assert storage.bytes_read == 550_000
        assert weights.exists()

    def test_all_of_it_is_read_ahead(self, storage: CountingStorage, weights: Path, index: Index) -> None:
        served = MeasuredFile(Measurements(index), _pinned(storage))
        told = [served.learn_ahead(128_000) for _ in range(9)]
        assert told == [True] * 7 + [False] * 2
        assert storage.bytes_read == len(_CONTENT)
        assert served.crc32() == zlib.crc32(_CONTENT)
        assert not served.learn_ahead(1000)
        assert storage.bytes_read == len(_CONTENT)
        assert weights.exists()

    def test_what_goes_wrong_ahead_is_told_to_who_asks(
        self, storage: CountingStorage, weights: Path, index: Index
    ) -> None:
        served = MeasuredFile(Measurements(index), _pinned(storage))
        assert served.learn_ahead(50_000)
        weights.write_bytes(b"other")
        assert not served.learn_ahead(50_000)
        with pytest.raises(SourceChangedError):
            served.crc32()

    def test_what_is_known_is_not_computed_again(
        self, storage: CountingStorage, weights: Path, index: Index, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measurements = Measurements(index)
        monkeypatch.setattr("bentofs.store.formats.crc32.crc32", lambda *_: pytest.fail("computed again"))
        served = MeasuredFile(measurements, _pinned(storage), crc32=zlib.crc32(_CONTENT))
        assert read_bytes(served, 0, len(_CONTENT)) == _CONTENT
        assert served.crc32() == zlib.crc32(_CONTENT)
        assert weights.exists()

    def test_bytes_before_and_after_a_change_are_never_mixed(
        self, storage: CountingStorage, weights: Path, index: Index
    ) -> None:
        served = MeasuredFile(Measurements(index), _pinned(storage))
        read_bytes(served, 0, 500_000)
        with weights.open("r+b") as file:
            file.seek(700_000)
            file.write(b"X" * 100)
        for look in (lambda: read_bytes(served, 500_000, 500_000), served.crc32):
            with pytest.raises(SourceChangedError):
                look()
        assert index.checksum(storage.status("weights").identity) is None

    def test_readers_and_askers_at_once(self, storage: CountingStorage, weights: Path, tmp_path: Path) -> None:
        for seed in range(20):
            measurements = Measurements(Index(tmp_path / f"{seed}" / "index.sqlite"))
            served = MeasuredFile(measurements, _pinned(storage))
            found: list[int] = []

            def read(served: MeasuredFile = served, seed: int = seed) -> None:
                for offset in random.Random(seed).sample(range(0, len(_CONTENT), 100_000), 10):
                    read_bytes(served, offset, 100_000)

            def ask(served: MeasuredFile = served, found: list[int] = found) -> None:
                found.append(served.crc32())

            threads = [threading.Thread(target=work) for work in (read, ask, read, ask)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert found == [zlib.crc32(_CONTENT)] * 2
            assert served.crc32() == zlib.crc32(_CONTENT)
        assert weights.exists()


def test_few_files_stay_open_however_many_are_read(store: Path, storage: CountingStorage) -> None:
    before = len(os.listdir("/proc/self/fd"))
    open_files = OpenFiles(limit=10)
    files = []
    for number in range(100):
        (store / f"{number}").write_bytes(b"%03d" % number)
        identity = storage.status(f"{number}").identity
        files.append(PinnedFile(storage, open_files, f"{number}", identity))
    for _ in range(2):
        for number, file in enumerate(files):
            assert read_bytes(file, 0, 3) == b"%03d" % number
            assert len(os.listdir("/proc/self/fd")) <= before + 11


def test_readers_that_come_together_open_a_file_once(storage: CountingStorage, weights: Path) -> None:
    """An open may take long, and a second one may wait for the bytes that the first reads."""
    assert weights.exists()
    storage.before_open = lambda: time.sleep(0.1)  # a slow disk
    file = _pinned(storage)
    with ThreadPoolExecutor(8) as pool:
        contents = list(pool.map(lambda offset: read_bytes(file, offset, 100), range(0, 800, 100)))
    assert b"".join(contents) == _CONTENT[:800]
    assert storage.opens == 1
