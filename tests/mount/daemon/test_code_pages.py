"""Pages of program code are given back, and come again when they are used."""

import subprocess
import sys

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
