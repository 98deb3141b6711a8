"""Acting as another user for a moment: permissions mean nothing to root, who may read and write everything."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65_534


@contextlib.contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Act as nobody if root runs the tests, else as the current user."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextlib.contextmanager
def folder_of_an_ordinary_user() -> Iterator[Path]:
    """Yield a directory that other users can enter. They cannot enter pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="bentofs-test-"))
    try:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        yield path
    finally:
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        shutil.rmtree(path)
