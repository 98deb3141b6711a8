"""Pages of program code are given back, and come again when they are used."""

import subprocess
import sys
from pathlib import Path

from tests.harness import ROOT

_PROGRAM = """
import hashlib, lzma, sqlite3
from bentofs.mount.daemon.code_pages import unmap_code

def mapped():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssFile"))

before = mapped()
unmap_code()
after = mapped()
content = lzma.decompress(lzma.compress(b"x" * 1_000_000))
assert hashlib.sha256(content).hexdigest().startswith("1b977e9f")
assert sqlite3.connect(":memory:").execute("SELECT 7").fetchone() == (7,)
print(before, after)
"""


def test_code_is_unmapped_and_still_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after < before / 2


_WHILE_MODULES_ARE_IMPORTED = """
import _lzma, importlib.machinery, importlib.util, os, shutil, sys, threading
from bentofs.mount.daemon.code_pages import unmap_code

def unmap_for_ever():
    while True:
        unmap_code()

threading.Thread(target=unmap_for_ever, daemon=True).start()
for number in range(50):
    copy = os.path.join(sys.argv[1], f"{number}.so")
    shutil.copy(_lzma.__file__, copy)
    loader = importlib.machinery.ExtensionFileLoader("_lzma", copy)
    loader.exec_module(importlib.util.module_from_spec(importlib.util.spec_from_loader("_lzma", loader)))
print("done", flush=True)
os._exit(0)
"""


def test_modules_are_imported_meanwhile(tmp_path: Path) -> None:
    """The dynamic linker's lock and Python's are never waited for in different orders."""
    done = subprocess.run(
        [sys.executable, "-c", _WHILE_MODULES_ARE_IMPORTED, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "done\n"


_WRITTEN_CODE = """
import ctypes, mmap, sys
from bentofs.mount.daemon.code_pages import unmap_code

SIZE = 4 * mmap.PAGESIZE
with open(sys.argv[1], "r+b") as file:
    file.truncate(SIZE)
    code = mmap.mmap(file.fileno(), SIZE, flags=mmap.MAP_PRIVATE)
code[mmap.PAGESIZE] = 7
place = ctypes.c_char.from_buffer(code)
mprotect = ctypes.CDLL(None).mprotect
assert mprotect(ctypes.c_void_p(ctypes.addressof(place)), ctypes.c_size_t(SIZE), mmap.PROT_READ | mmap.PROT_EXEC) == 0
unmap_code()
print(code[mmap.PAGESIZE])
"""


def test_code_that_was_written_to_stays(tmp_path: Path) -> None:
    """A library with relocations in its text is such code."""
    command = [sys.executable, "-c", _WRITTEN_CODE, str(tmp_path / "code")]
    (tmp_path / "code").touch()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7\n"
