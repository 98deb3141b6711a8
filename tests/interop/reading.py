"""Compare an archive's content, unpacked by people's tools and Python, with the model's folder in the store."""

import tarfile
import zipfile
from pathlib import Path

from tests.harness import run


def check_same_tree(original: Path, extracted: Path) -> None:
    """Check that names, empty folders and every byte agree."""
    assert run("diff", "-r", original, extracted).stdout == ""


def check_tarfile(archive: Path, original: Path) -> None:
    """Check all files with Python's tarfile."""
    with tarfile.open(archive) as tar:
        files = [member for member in tar if member.isfile()]
        assert len(files) == _count(original)
        for member in files:
            content = tar.extractfile(member)
            assert content is not None
            assert content.read() == (original / member.name).read_bytes(), member.name


def check_zipfile(archive: Path, original: Path) -> None:
    """Check all files with Python's zipfile."""
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        files = [info for info in file.infolist() if not info.is_dir()]
        assert len(files) == _count(original)
        for info in files:
            assert file.read(info) == (original / info.filename).read_bytes(), info.filename


def _count(folder: Path) -> int:
    return len([path for path in folder.rglob("*") if path.is_file()])
