"""What a mount takes under load, it gives back: nodes, descriptors, threads. And the sizes of requests."""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.harness import Mounted, make_model, run, wait_until

MODELS = 12


def status_of(mount: Mounted) -> dict[str, Any]:
    return dict(json.loads((mount.path / ".bentofs" / "status.json").read_text()))


def use(store: Path, mount: Mounted) -> None:
    """Read models and delete them; make uploads and remove them."""
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


def test_all_comes_back(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store, options=["--engine", "kernel"])
    use(store, mount)  # caches, and threads that stay, come by the first use
    first = status_of(mount)
    for _ in range(2):
        use(store, mount)

    def is_back() -> bool:
        now = status_of(mount)
        return bool(
            now["kernel_nodes"] <= first["kernel_nodes"] + 2
            and now["process"]["open_files"] <= first["process"]["open_files"] + 2
            and now["process"]["threads"] <= first["process"]["threads"] + 2
        )

    wait_until(is_back, 30, "nodes, descriptors and threads come back")
    assert status_of(mount)["kernel_nodes"] < 100, "hundreds of names were looked up"
