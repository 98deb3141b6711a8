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


_LINKER = """
import _lzma, ctypes, mmap, struct, sys
from bentofs.mount.daemon import code_pages

linked = open(_lzma.__file__, "rb")
content = linked.read()
begin, count = struct.unpack_from("=Q", content, 32)[0], struct.unpack_from("=H", content, 56)[0]
heads = [struct.unpack_from("=IIQQQQQ", content, begin + 56 * number) for number in range(count)]
segments = [(flags, offset, address, length) for kind, flags, offset, address, _, length, _ in heads if kind == 1]
map_at = ctypes.CDLL(None).mmap
map_at.restype = ctypes.c_void_p
map_at.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
FIXED, PAGE = 0x10, mmap.PAGESIZE

def map_segment(segment):
    flags, offset, address, length = segment
    rights = (mmap.PROT_READ if flags & 4 else 0) | (mmap.PROT_WRITE if flags & 2 else 0) | (flags & 1) * mmap.PROT_EXEC
    start, more = base + address - address % PAGE, offset % PAGE
    assert map_at(start, length + more, rights, mmap.MAP_PRIVATE | FIXED, linked.fileno(), offset - more) == start
    return start
"""

_LIBRARY_THAT_IS_BEING_LOADED = (
    _LINKER
    + """
whole = max(address + length for _, _, address, length in segments)
base = map_at(None, whole, mmap.PROT_READ, mmap.MAP_PRIVATE, linked.fileno(), 0)
code, data = (next(each for each in segments if each[0] & flag) for flag in (1, 2))
map_segment(code)
mappings_of = code_pages._mappings

def mappings_while_it_is_loaded(smaps):
    global place
    yield from mappings_of(smaps)
    place = ctypes.c_char.from_address(map_segment(data))
    place.value = b"7"

code_pages._mappings = mappings_while_it_is_loaded
code_pages.unmap_code()
print(place.value)
"""
)


def test_the_data_of_a_library_that_is_being_loaded_stays() -> None:
    """The dynamic linker maps the whole file first, and the data over a part of that."""
    command = [sys.executable, "-c", _LIBRARY_THAT_IS_BEING_LOADED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "b'7'\n"


_WRITTEN_CODE = (
    _LINKER
    + """
base = map_at(None, len(content) * 2, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
code = next(each for each in segments if each[0] & 1)
flags, offset, address, length = code
start = map_segment((6, offset, address, length))
place = ctypes.c_char.from_address(start)
place.value = b"7"
protect = ctypes.CDLL(None).mprotect
assert protect(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.PROT_READ | mmap.PROT_EXEC) == 0
code_pages.unmap_code()
print(place.value)
"""
)


def test_code_that_was_written_to_stays() -> None:
    """A library with relocations in its text is such code."""
    command = [sys.executable, "-c", _WRITTEN_CODE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "b'7'\n"
