"""Every promise in SEMANTICS.md names tests that exist."""

import re
from pathlib import Path

from tests.harness import ROOT

NAMED = re.compile(r"`((?:mount|store|interop|faults)/[\w/]*test_\w+\.py)(?:::(\w+))?`")


def test_named_tests_exist() -> None:
    named = NAMED.findall((ROOT / "mount" / "SEMANTICS.md").read_text())
    assert len(named) > 30
    missing = [f"{file}::{test}" for file, test in named if not _exists(ROOT / "tests" / file, test)]
    assert not missing


def _exists(path: Path, test: str) -> bool:
    return path.is_file() and (
        not test or re.search(rf"^(def|class) {test}\(", path.read_text(), re.MULTILINE) is not None
    )
