"""Programs write, rename, remove and truncate the same names at once. Every success means that this very model is in
the store, whole."""

import contextlib
import io
import os
import random
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from scripts.sample_store import write_model
from tests.harness import Mounted, wait_until
from tests.incoming import area_of, staged

SECONDS = 6.0
THREADS = 4


def weights(tag: str, size: int) -> bytes:
    return random.Random(tag).randbytes(size)


def archive(base: Path, tag: str, size: int) -> bytes:
    name, version = tag.split(":")
    if not (base / name / version).exists():
        write_model(base, tag, {}, creation_time="2026-01-02T03:04:05+00:00", labels={}, complete=True, latest=False)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(base / name / version / "model.yaml", "model.yaml")
        member = tarfile.TarInfo("w")
        member.size = size
        tar.addfile(member, io.BytesIO(weights(tag, size)))
    return packed.getvalue()


def write(path: Path, content: bytes, dice: random.Random, *, truncating: bool) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if truncating else 0))
    try:
        if not truncating:
            os.ftruncate(descriptor, 0)
        at = 0
        while at < len(content):
            at += os.pwrite(descriptor, content[at : at + dice.choice([4096, 131_072, 1 << 20])], at)
            if dice.random() < 0.1:
                with contextlib.suppress(OSError):
                    os.close(os.dup(descriptor))
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)


def test_a_success_is_always_true(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    mount = mounted(store)
    mount.allow_log("was not imported: ")
    incoming = mount.path / "incoming"
    acknowledged: list[tuple[str, int]] = []
    unexpected: list[Exception] = []
    end = time.monotonic() + SECONDS

    def work(worker: int) -> None:
        dice = random.Random(worker)
        number = 0
        while time.monotonic() < end:
            number += 1
            tag, size = f"m{worker}:v{number}", dice.choice([1000, 50_000, 700_000])
            name = incoming / dice.choice(["x", "y.tar"])
            temporary = incoming / dice.choice([f".x.aBcDe{worker}", f"p{worker}.part"])
            how = dice.choice(["write", "write", "rewrite", "rename", "remove", "truncate"])
            try:
                if how == "rename":
                    write(temporary, archive(tmp_path / "made", tag, size), dice, truncating=True)
                    os.rename(temporary, name)
                elif how in ("write", "rewrite"):
                    write(name, archive(tmp_path / "made", tag, size), dice, truncating=how == "write")
                elif how == "remove":
                    os.unlink(name)
                    continue
                else:
                    os.truncate(name, 0)
                    continue
            except OSError:
                continue
            except Exception as error:
                unexpected.append(error)
                return
            acknowledged.append((tag, size))

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not unexpected
    assert len(acknowledged) > 10
    lost = [tag for tag, size in acknowledged if _content(store, tag) != weights(tag, size)]
    assert not lost
    for folder in store.glob("*/v*"):
        content = (folder / "w").read_bytes()
        assert content == weights(f"{folder.parent.name}:{folder.name}", len(content)), "a mixture of two"
    for left in incoming.iterdir():
        left.unlink(missing_ok=True)  # a note goes with its name
    wait_until(lambda: not staged(area_of(store)), 10, "nothing is left in staging")


def _content(store: Path, tag: str) -> bytes | None:
    path = store / tag.replace(":", "/") / "w"
    return path.read_bytes() if path.exists() else None
