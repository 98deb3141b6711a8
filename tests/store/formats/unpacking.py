"""Helpers for tests of unpacking: a model to pack, archives of it by every writer, and the unpacked result."""

import io
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bentofs.store.formats.read.extract import extract
from bentofs.store.formats.read.growing_file import ArrivingFile, WholeFile
from bentofs.store.formats.write.members import Member
from bentofs.store.formats.write.registry import FORMATS
from bentofs.store.staging.limits import Limits
from bentofs.store.staging.model import Staged, StagedModel
from tests.store.content import Memory, laid_out_as, whole

MODEL_YAML = b"""\
name: iris
version: v1
module: ''
labels: {}
creation_time: '2026-01-02T03:04:05.678901+00:00'
"""
_RANDOM = random.Random(3)
PLAIN = {
    "model.yaml": MODEL_YAML,
    "weights.bin": _RANDOM.randbytes(150_000),
    "zeros.bin": bytes(200_000),
    "empty.bin": b"",
    "nested/deep/leaf.txt": b"leaf",
    "nested/model.yaml": b"name: another\nversion: model\n",
    "nested/void/": None,
    "run.sh": b"#!/bin/sh\n",
    "names/\u00dcn\u00efc\u00f6d\u00e9 \u6a21\u578b.txt": b"names",
    "names/back\\slash": b"",
    "names/.hidden": b"dot",
}
LONG = {
    **PLAIN,
    "names/" + "long-" * 40 + ".txt": b"more than a tar header's 100 characters",
    "nested/" + "d" * 90 + "/" + "e" * 90 + "/f" * 40: b"a path longer than ustar's name and prefix",
}

# A directory in memory: staging hundreds of models in a test must not wait for a disk.
_FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

Tree = dict[str, tuple[bytes | None, bool]]  # path: content (None: a directory), executable


def tree_of(files: dict[str, bytes | None]) -> Tree:
    """Return the expected content of a directory made of these files."""
    tree: Tree = {}
    for path, content in files.items():
        above = path.rstrip("/").split("/")
        for depth in range(1, len(above)):
            tree["/".join(above[:depth])] = (None, True)
        tree[path.rstrip("/")] = (content, content is None or path.endswith(".sh"))
    return tree


def look(folder: str | Path) -> Tree:
    """Return the content of a directory. Links are not followed."""
    tree: Tree = {}
    for above, folders, files in os.walk(folder):
        for name in folders:
            path = os.path.join(above, name)
            assert not os.path.islink(path)
            tree[os.path.relpath(path, folder)] = (None, True)
        for name in files:
            path = os.path.join(above, name)
            mode = os.lstat(path).st_mode
            assert mode & 0o7777 in (0o644, 0o755), f"{path}: {mode:o}"
            with open(path, "rb") as file:
                tree[os.path.relpath(path, folder)] = (file.read(), mode & 0o7777 == 0o755)
    return tree


def write_files(folder: Path, files: dict[str, bytes | None]) -> Path:
    """Make a directory of these files; `.sh` may be executed."""
    for path, content in files.items():
        target = folder / path
        if content is None:
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            target.chmod(0o755 if path.endswith(".sh") else 0o644)
    return folder


def members_of(files: dict[str, bytes | None]) -> list[Member]:
    """Return these files as members of an archive."""
    return [
        Member(path, content is None, executable, Memory(content) if content else None)
        for path, (content, executable) in sorted(tree_of(files).items())
    ]


def ours(form: str, files: dict[str, bytes | None]) -> bytes:
    """Return the archive that a mount shows."""
    return whole(laid_out_as(FORMATS[form], members_of(files), 1_700_000_000))


@contextmanager
def whole_file(archive: bytes | Path) -> Iterator[WholeFile]:
    """Yield an archive that has arrived."""
    with tempfile.TemporaryFile() as file:
        if isinstance(archive, Path):
            with archive.open("rb") as source:
                shutil.copyfileobj(source, file)
        else:
            file.write(archive)
        file.flush()
        yield WholeFile(file.fileno())


def unpack(archive: bytes | Path | ArrivingFile, folder: Path, limits: Limits | None = None) -> Staged:
    """Stage an archive as `folder`. If it is refused, nothing may be left, inside or beside."""
    beside = set(folder.parent.iterdir())
    model = StagedModel(str(folder), limits)
    try:
        if isinstance(archive, bytes | Path):
            with whole_file(archive) as arriving:
                extract(arriving, model)
                return model.finish()
        extract(archive, model)
        return model.finish()
    except BaseException:
        model.discard()
        assert set(folder.parent.iterdir()) == beside
        raise


def unpacked(archive: bytes | Path | ArrivingFile) -> Tree:
    """Return the content of an archive."""
    with tempfile.TemporaryDirectory(dir=_FAST) as base:
        return look(unpack(archive, Path(base) / "staged").path)


class Trickling:
    """An archive that arrives in random pieces, with pauses, from its own thread."""

    def __init__(self, content: bytes, seed: int, longest: int = 40_000) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the context
        self._condition = threading.Condition()
        self._there = 0
        self._ended = False
        self.asked_for_length = False
        self.memory: list[int] = []  # the amounts taken, in order
        self._thread = threading.Thread(target=self._arrive, args=(content, random.Random(seed), longest))

    def __enter__(self) -> "Trickling":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._file.close()

    def _arrive(self, content: bytes, dice: random.Random, longest: int) -> None:
        at = 0
        while at < len(content):
            piece = content[at : at + dice.randint(1, longest)]
            os.pwrite(self._file.fileno(), piece, at)
            at += len(piece)
            with self._condition:
                self._there = at
                self._condition.notify_all()
            if dice.random() < 0.3:
                time.sleep(0.001)  # a slow sender
        with self._condition:
            self._ended = True
            self._condition.notify_all()

    def read_into(self, view: memoryview, offset: int) -> int:
        with self._condition:
            assert self._condition.wait_for(lambda: self._there > offset or self._ended, 30)
            count = max(0, min(len(view), self._there - offset))
        return os.preadv(self._file.fileno(), [view[:count]], offset) if count else 0

    def length(self) -> int:
        self.asked_for_length = True
        with self._condition:
            assert self._condition.wait_for(lambda: self._ended, 30)
        return self._there

    def fileno(self) -> int:
        return self._file.fileno()

    def take_memory(self, amount: int) -> int:
        self.memory.append(amount)
        return amount


class Unseekable(io.RawIOBase):
    """A file to which zipfile can only stream."""

    def __init__(self) -> None:
        self.content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        view = memoryview(content)  # type: ignore[arg-type]
        self.content += view
        return len(view)
