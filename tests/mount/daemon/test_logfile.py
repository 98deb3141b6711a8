"""A daemon's log does not grow without bound, and keeps all messages of libfuse."""

import subprocess
import sys
from pathlib import Path

from tests.harness import ROOT

_PROGRAM = """
import logging, os, sys
from pathlib import Path
from bentofs.mount.daemon.logfile import LogFile
logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[LogFile(Path(sys.argv[1]), 10_000)])
for number in range(1000):
    logging.info("record %04d %s", number, "x" * 80)
    if number % 100 == 99:
        os.write(2, b"libfuse says %d\\n" % number)
"""


def test_bounded_and_standard_error_follows(tmp_path: Path) -> None:
    path = tmp_path / "mount.log"
    path.write_text("of the mount before\n")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, path], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["mount.log", "mount.log.1"]
    assert all(file.stat().st_size < 11_000 for file in files)
    kept = files[1].read_text() + files[0].read_text()
    assert kept.rstrip().endswith("libfuse says 999")
    assert "record 0999" in kept
