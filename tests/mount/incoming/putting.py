"""Write uploads, and look at what became of them."""

import contextlib
import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from scripts.sample_store import model_yaml
from tests.harness import Mounted, ended, wait_until
from tests.incoming import (
    area_of,
    staged,
)

Mount = Callable[..., Mounted]


def yaml_of(tag: str) -> bytes:
    return model_yaml(tag, "2026-01-02T03:04:05.678901+00:00").encode()


def put(mount: Mounted, name: str, content: bytes) -> int:
    """Write a file into incoming/ like a program that checks every error. Return 0 or the first errno."""
    try:
        descriptor = os.open(mount.path / "incoming" / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    except OSError as error:
        return error.errno or -1
    number = 0
    view = memoryview(content)
    try:
        while view:
            view = view[os.write(descriptor, view[: 1 << 20]) :]
    except OSError as error:
        number = error.errno or -1
    try:
        os.close(descriptor)
    except OSError as error:
        number = number or error.errno or -1
    return number


def in_incoming(mount: Mounted) -> list[str]:
    return sorted(os.listdir(mount.path / "incoming"))


def nothing_is_staged(mount: Mounted) -> None:
    wait_until(lambda: staged(area_of(mount.store)) == [], 10, "nothing is left in staging")


@contextlib.contextmanager
def slow_copy(target: Path, pipe: Path) -> Iterator[BinaryIO]:
    """Yield a file whose content another program writes to `target`. That program has no other upload. A descriptor of
    this process would be inherited by every child, and each close in a child ends the upload."""
    os.mkfifo(pipe)
    with ended(subprocess.Popen(["bash", "-c", 'cat "$0" > "$1"', pipe, target])) as copier:
        with pipe.open("wb", 0) as feed:
            yield feed
        assert copier.wait(60) == 0


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar_with(*members: tuple[tarfile.TarInfo, bytes], tag: str = "bad:v1", form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of a model with these additional members."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as tar:
        for info, content in (member("model.yaml", yaml_of(tag)), member("w", b"w" * 1000), *members):
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()
