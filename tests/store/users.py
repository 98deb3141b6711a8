"""Being another user for a moment: root may read and write everything, so permissions mean nothing to it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65_534


@contextlib.contextmanager
def an_ordinary_user() -> Iterator[None]:
    """As nobody, if the tests are run by root; else as who runs them."""
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
    """pytest's own folders cannot be entered by anyone else."""
    path = Path(tempfile.mkdtemp(prefix="bentofs-test-"))
    try:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        yield path
    finally:
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        shutil.rmtree(path)
