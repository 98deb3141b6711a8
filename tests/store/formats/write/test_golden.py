"""The same model gives the same bytes today and later, on all machines."""

import hashlib
import subprocess
import sys

import pytest

from bentofs.store.formats.write.registry import LAYOUT_VERSION
from tests.store.formats import golden
from tests.store.formats.writers import WRITERS


@pytest.mark.parametrize("name", golden.SHA256)
def test_no_byte_has_changed(name: str) -> None:
    """If the bytes change, raise LAYOUT_VERSION, with which SHA-256s are kept; then update these."""
    assert golden.digests()[name] == golden.SHA256[name]
    expected = WRITERS[name](golden.members(), golden.MTIME)
    assert hashlib.sha256(expected).hexdigest() == golden.SHA256[name]
    assert LAYOUT_VERSION == golden.LAYOUT_VERSION


@pytest.mark.parametrize("setting", ["TZ=Asia/Kolkata", "TZ=America/St_Johns", "LC_ALL=C", "LC_ALL=tr_TR.UTF-8"])
def test_the_same_bytes_wherever(setting: str) -> None:
    variable, _, value = setting.partition("=")
    assert golden.digests_under([sys.executable], {variable: value}) == golden.SHA256


def test_the_same_bytes_under_any_umask() -> None:
    command = ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable]
    assert golden.digests_under(command, {}) == golden.SHA256


@pytest.mark.parametrize("python", golden.other_pythons(), ids=lambda python: ".".join(map(str, python[0])))
def test_the_same_bytes_under_other_pythons(python: tuple[tuple[int, int], str], pytestconfig: pytest.Config) -> None:
    (major, minor), executable = python
    packages = pytestconfig.cache.mkdir(f"isal-{major}.{minor}")
    if not any(packages.glob("isal/*.so")):
        installed = subprocess.run(
            [executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", packages, "isal"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert not installed.returncode, f"isal for Python {major}.{minor}: {installed.stderr[-500:]}"
    assert golden.digests_under([executable], {"PYTHONPATH": str(packages)}) == golden.SHA256
