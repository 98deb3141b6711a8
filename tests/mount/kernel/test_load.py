"""A mount gives back what it takes under load: nodes, descriptors, threads. Requests have their full size."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.harness import Mounted, ended, make_model, run, wait_until
from tests.slow_disk import STUCK
from tests.waiting import wait_until_hanging

MODELS = 12


def status_of(mount: Mounted) -> dict[str, Any]:
    return dict(json.loads((mount.path / ".bentofs" / "status.json").read_text()))


def use(store: Path, mount: Mounted) -> list[Path]:
    """Read models and delete them; make uploads and remove them. Return the places where the models were."""
    tags = [f"gone{number}:v1" for number in range(MODELS)]
    for tag in tags:
        make_model(store, tag, {"w.bin": os.urandom(300_000), "a/b/c": b"c", "d/": b""})
    paths = [mount.archive(tag, suffix) for tag in tags for suffix in (".tar", ".zip", ".tar.gz", ".bentomodel")]
    wait_until(lambda: all(mount.shows(tag) for tag in tags), 20, "the models are shown")
    run("ls", "-lR", mount.path / "models", mount.path / "by-format")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(Path.read_bytes, paths))
    folder = mount.path / "incoming" / "folder"
    folder.mkdir()
    for number in range(200):
        path = folder / f".{number}"
        path.write_bytes(b"x")
        path = path.rename(folder / f".{number}-renamed")
        assert path.stat().st_size == 1
    run("rm", "-r", folder)
    for tag in tags:
        shutil.rmtree(store / tag.split(":")[0])
    folders = [mount.path / "models", *(mount.path / "by-format").iterdir()]
    places = [folder / tag.split(":")[0] for folder in folders for tag in tags]
    wait_until(lambda: not any(os.path.exists(place) for place in places), 20, "the deleted models are gone")
    return places


def test_all_comes_back(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store, options=["--engine", "kernel"], own_process=True)
    run("ls", "-lR", mount.path)
    mount.archive("m:v1", ".zip").read_bytes()
    idle = status_of(mount)
    places = use(store, mount)

    def is_back() -> bool:
        assert not any(os.path.exists(place) for place in places)  # the kernel forgets a name once it is looked up
        now = status_of(mount)
        return bool(
            now["kernel_nodes"] <= idle["kernel_nodes"] + 2
            and now["process"]["open_files"] <= idle["process"]["open_files"] + 4
            and now["process"]["threads"] <= idle["process"]["threads"] + 4
        )

    wait_until(is_back, 40, "nodes, descriptors and threads come back", interval=0.5)


def test_kill_ends_all_who_wait(stuck_store: tuple[Path, Path], mounted: Callable[..., Mounted]) -> None:
    """The daemon is killed while 64 readers wait for a dead disk: each gets an error, none an early end."""
    store, _ = stuck_store
    mount = mounted(store, own_process=True)
    errors: list[int | None] = []

    def read(number: int) -> None:
        try:
            with open(paths[number], "rb", buffering=0) as file:
                file.seek(20_000)
                file.read(50_000)
            errors.append(None)
        except OSError as error:
            errors.append(error.errno)

    paths = [mount.archive(f"stuck{number:02}:v1", ".tar") for number in range(STUCK)]
    readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in range(STUCK)]
    for reader in readers:
        reader.start()
    wait_until_hanging(*(reader.native_id for reader in readers))
    os.kill(mount.pid, signal.SIGKILL)
    for reader in readers:
        reader.join(20)
    assert set(errors) <= {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO}
    assert len(errors) == STUCK
    mount.kill()


def test_requests_of_a_mebibyte(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """Both ways. strace sees what the daemon reads from the kernel, and what it writes to it."""
    make_model(store, "m:v1", {"w.bin": os.urandom(5 << 20)})
    mount = mounted(store, options=["--engine", "kernel", "--no-passthrough"])
    seen = tmp_path / "strace"
    command = ["strace", "-f", "-o", str(seen), "-e", "trace=readv,writev,write", "-p", str(mount.pid)]
    with ended(subprocess.Popen(command, stderr=subprocess.PIPE, text=True)) as tracer:
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        weights = mount.path / "models/m/v1/files/w.bin"
        run("dd", f"if={weights}", "of=/dev/null", "bs=1M", "iflag=direct")
        run("dd", f"if={weights}", f"of={mount.path}/incoming/.w", "bs=1M")
        tracer.terminate()
        tracer.wait(10)
    sizes = [int(size) for size in re.findall(r" = (\d+)$", seen.read_text(), re.MULTILINE)]
    headers = {16: "of a read's reply", 80: "of a write's request"}
    for header, what in headers.items():
        assert sizes.count((1 << 20) + header) >= 4, f"{what}: {sorted(set(sizes))[-5:]}"
    assert (mount.path / "incoming" / ".w").read_bytes() == (store / "m/v1/w.bin").read_bytes()
