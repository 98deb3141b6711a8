"""Faults seeded on purpose: `test_incoming_model.py` finds each of them.

A campaign: BENTOFS_SEEDED=1 scripts/test tests/mount/kernel/test_seeded_faults.py. Without it, only the places of the
faults are checked.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import ROOT

SEQUENCES = 60  # the most that a fault may take to be found
STEPS = 30
_SECONDS = 3600.0  # for one fault
_TEST = "tests/mount/kernel/test_incoming_model.py"


class Fault(NamedTuple):
    """One line of the sources, and the faulty one in its place."""

    file: str
    line: str
    faulty: str


FAULTS = {
    "names believed for a minute": Fault(
        "mount/kernel/native/handlers/context.py", "NAME_SECONDS = 1", "NAME_SECONDS = 60"
    ),
    "no identity check": Fault(
        "store/storage/local_file.py", "look.st_ctime_ns == identity[4]", "True or look.st_ctime_ns == identity[4]"
    ),
    "one node for all generations of a path": Fault(
        "mount/kernel/native/node_table.py",
        "if node is None or node.generation != generation or node.kind != kind:",
        "if node is None or node.kind != kind:",
    ),
    "a removed file keeps its node": Fault("mount/kernel/native/handlers/names.py", "self._nodes.remove(path)", "pass"),
    "a renamed file keeps its node": Fault(
        "mount/kernel/native/handlers/names.py", "self._nodes.rename(old, new)", "pass"
    ),
    "a close without an outcome": Fault(
        "mount/kernel/operations.py", "self._box().files.flush(handle - _FIRST_UPLOAD)", "pass"
    ),
    "a length set by handle is ignored": Fault(
        "mount/kernel/operations.py", "self._box().files.truncate(self._upload(handle), length)", "self._upload(handle)"
    ),
    "a length set by name is ignored": Fault(
        "mount/kernel/operations.py",
        "self._box().files.truncate_path(self._incoming(path), length, user)",
        "self._incoming(path)",
    ),
    "reads of pieces begin at their start": Fault(
        "store/formats/pieces.py", "piece.read_into(views, within)", "piece.read_into(views, 0)"
    ),
}
each_fault = pytest.mark.parametrize("name", FAULTS)


@each_fault
def test_its_place_is_there(name: str) -> None:
    fault = FAULTS[name]
    assert fault.line in (ROOT / fault.file).read_text()


@each_fault
@pytest.mark.skipif("BENTOFS_SEEDED" not in os.environ, reason="a campaign: BENTOFS_SEEDED=1")
def test_it_is_found(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    copy = tmp_path / "sources"
    for part in ("mount", "store", "tests", "scripts", ".src"):
        shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    file = copy / fault.file
    file.write_text(file.read_text().replace(fault.line, fault.faulty))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'run'}", _TEST],
        cwd=copy,
        env={
            **os.environ,
            "PYTHONPATH": str(copy / ".src"),
            "BENTOFS_SEQUENCES": str(SEQUENCES),
            "BENTOFS_STEPS": str(STEPS),
        },
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
