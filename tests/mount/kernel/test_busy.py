"""Many readers, slow readers, stuck readers: none starves, and a mount ends when told to."""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.engines import both_engines, cases_by_engine
from tests.harness import Mounted, ended, make_model, mountpoints, run, wait_until
from tests.slow_disk import STUCK
from tests.waiting import wait_until_hanging


@both_engines
def test_stuck_readers_stop_nobody(
    stuck_store: tuple[Path, Path], mounted: Callable[..., Mounted], engine: tuple[str, ...]
) -> None:
    store, gate = stuck_store
    mount = mounted(store, options=engine, own_process=True)
    fast = mount.archive("fast:v1", ".tar")
    paths = [mount.archive(f"stuck{number:02}:v1", ".tar") for number in range(STUCK)]
    for path in paths:
        path.stat()
    results: list[bytes] = []

    def read(path: Path) -> None:
        with path.open("rb", buffering=0) as file:
            file.seek(20_000)
            results.append(file.read(50_000) or b"")

    threads = [threading.Thread(target=read, args=(path,), daemon=True) for path in paths]
    for thread in threads:
        thread.start()
    wait_until_hanging(*(thread.native_id for thread in threads))
    assert not results  # all of them hang
    begun = time.monotonic()
    assert "fast" in run("ls", "-l", mount.path / "models", seconds=20).stdout
    assert len(fast.read_bytes()) == fast.stat().st_size
    assert run("cat", mount.path / "README.txt", seconds=20).stdout
    # This is far above the usual time. Where readers starve others, it hangs for ever.
    assert time.monotonic() - begun < 10
    gate.unlink()
    for thread in threads:
        thread.join(30)
    assert len(results) == STUCK
    assert all(len(set(content)) == 1 and len(content) == 50_000 for content in results)
    # Unneeded extra workers end. They notice it only at a few requests.
    wait_until(lambda: list(os.scandir(mount.path / "models")) and _threads(mount.pid) < 20, 90, "extra threads end")


def test_a_slow_measurement_keeps_up_its_own_folder_only(
    stuck_store: tuple[Path, Path], mounted: Callable[..., Mounted]
) -> None:
    """`stat` of a compressed archive waits until its model was read once. Listings never wait."""
    store, gate = stuck_store
    mount = mounted(store, own_process=True)
    sizes: list[int] = []

    def look(number: int) -> None:
        sizes.append(mount.archive(f"stuck{number:02}:v1", ".tar.gz").stat().st_size)

    threads = [threading.Thread(target=look, args=(number,), daemon=True) for number in range(16)]
    for thread in threads:
        thread.start()
    wait_until_hanging(*(thread.native_id for thread in threads))
    assert not sizes  # all of them hang
    begun = time.monotonic()
    assert "fast" in run("ls", "-l", mount.path / "models", seconds=20).stdout
    names = run("ls", mount.path / "by-format" / "tar.gz" / "stuck03", seconds=20).stdout
    assert "stuck03-v1.tar.gz" in names
    for suffix in (".tar.gz", ".zip"):
        fast = mount.archive("fast:v1", suffix)
        assert len(fast.read_bytes()) == fast.stat().st_size
    assert time.monotonic() - begun < 15
    gate.unlink()
    for thread in threads:
        thread.join(30)
    assert len(sizes) == 16
    assert max(sizes) < 10_000


def _threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@cases_by_engine("suffix", [".tar", ".tar.gz"], [".tar.gz"])
def test_sigterm_ends_a_stuck_mount(
    stuck_store: tuple[Path, Path], mounted: Callable[..., Mounted], suffix: str, engine: tuple[str, ...]
) -> None:
    """While reading, and while measuring."""
    store, _ = stuck_store
    mount = mounted(store, options=engine, own_process=True)
    reader = subprocess.Popen(
        ["cat", str(mount.archive("stuck00:v1", suffix))], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with ended(reader):
        wait_until_hanging(reader.pid)
        mount.stop()
        assert reader.wait(10) != 0  # an error, not an early end


@cases_by_engine("signal_number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], [signal.SIGTERM])
def test_signals_under_load_end_cleanly(
    store: Path, mounted: Callable[..., Mounted], signal_number: signal.Signals, engine: tuple[str, ...]
) -> None:
    make_model(store, "m:v1", {f"{number}.bin": os.urandom(1_000_000) for number in range(30)})
    mount = mounted(store, options=engine, own_process=True)
    for _ in range(4):
        loops = [
            subprocess.Popen(
                ["sh", "-c", f"while cat '{mount.archive('m:v1', suffix)}'; do :; done"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for suffix in (".tar", ".zip", ".bentomodel", ".tar.gz")
        ]
        held = os.open(mount.path / "README.txt", os.O_RDONLY)
        time.sleep(random.uniform(0.1, 0.5))  # any moment of the reading
        os.kill(mount.pid, signal_number)
        try:
            assert mount.process.wait(15) == 0, mount.log()
            assert not mountpoints(mount.path)
        finally:
            with contextlib.suppress(OSError):  # a mount with incoming/ is asked at every close, and is gone
                os.close(held)
            for loop in loops:
                os.killpg(loop.pid, signal.SIGKILL)
                loop.wait(10)
        mount.stop()  # checks the log
        mount.start()


def test_unmounting_from_outside_ends_the_daemon(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store, own_process=True)
    mount.wait_for_log("is mounted at")  # before that, the daemon looks at its own mount and makes it busy
    run("fusermount", "-u", mount.path)
    assert mount.process.wait(15) == 0
    mount.stop()


def test_sixteen_readers_at_random_offsets(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"a.bin": os.urandom(9_000_000), **{f"s/{n}": os.urandom(n * 37) for n in range(200)}})
    mount = mounted(store, own_process=True)
    paths = [mount.archive("m:v1", suffix) for suffix in (".bentomodel", ".tar", ".tar.gz", ".zip")]
    whole = {path: path.read_bytes() for path in paths}

    def read(seed: int) -> None:
        dice = random.Random(seed)
        descriptors = {path: os.open(path, os.O_RDONLY) for path in paths}
        for _ in range(150):
            path = dice.choice(paths)
            offset = dice.randrange(len(whole[path]))
            size = dice.choice([1, 512, 4096, 70_000, 300_000])
            if dice.random() < 0.2:
                os.posix_fadvise(descriptors[path], 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(descriptors[path], size, offset) == whole[path][offset : offset + size]
        for descriptor in descriptors.values():
            os.close(descriptor)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(16)))
