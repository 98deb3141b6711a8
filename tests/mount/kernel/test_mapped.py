"""A model is replaced while a program maps its bytes: old bytes or SIGBUS; never new bytes, never a mixture."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines import cases_by_engine
from tests.harness import Mounted, ended, make_model
from tests.mount.view.test_replaced import REPLACEMENTS, SIZE, open_and_read, replace, weights
from tests.waiting import let_a_change_be_seen

# Write the mapped bytes, a page at a time: the first half before the go-ahead, all of it afterwards.
_PROGRAM = """
import mmap, os, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
for at in range(0, len(mapped) // 2, mmap.PAGESIZE):
    mapped[at]
os.write(1, b"ready\\n")
sys.stdin.readline()
for at in range(0, len(mapped), mmap.PAGESIZE):
    page = mapped[at : at + mmap.PAGESIZE]
    while page:
        page = page[os.write(1, page):]
"""


@cases_by_engine("which", list(REPLACEMENTS), ["smaller"])
@pytest.mark.parametrize("shown", ["m-v1.bentomodel", "m-v1.tar", "files/weights.bin"])
def test_mapped_readers(
    store: Path, mounted: Callable[..., Mounted], shown: str, which: str, engine: tuple[str, ...]
) -> None:
    make_model(store, "m:v1", weights(b"A", SIZE))
    mount = mounted(store, options=engine)
    path = mount.path / "models/m/v1" / shown
    before = path.read_bytes()
    command = [sys.executable, "-c", _PROGRAM, str(path)]
    with ended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"ready\n"
        replace(store, "m:v1", b"B", REPLACEMENTS[which])
        let_a_change_be_seen()
        path.stat()
        fresh = open_and_read(path)  # a second reader, of the new model, fills the kernel's cache
        assert fresh.error is None
        assert fresh.only(b"B")
        found, _ = reader.communicate(b"go on\n", timeout=60)
    assert before.startswith(found)
    assert reader.returncode in (0, -signal.SIGBUS)
    assert (reader.returncode == 0) == (len(found) == len(before))
