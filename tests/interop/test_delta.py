"""Nightly backups by rsync's own algorithm: an edited `model.yaml` moves little of an archive in each stored format."""

import os
import random
import re
import shutil
from pathlib import Path

import pytest

from bentofs.store.api import Store
from tests.harness import home_of, make_model, run

_FILES = {f"weights/{number}.bin": random.Random(number).randbytes(6_000_000 + number) for number in range(3)}
_FILES |= {f"small/{number}.json": random.Random(number).randbytes(5_000) for number in range(400)}


@pytest.mark.parametrize("name", ["bentomodel", "tar.gz", "tar", "zip"])
def test_an_edited_model_yaml_moves_little(
    store: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in home_of(tmp_path / "home").items():
        monkeypatch.setenv(variable, value)
    model = make_model(store, "some:v1", _FILES)
    before = model.stat()
    backup, current = tmp_path / "backup", tmp_path / "current"
    for copy in (backup, current):
        with Store(str(store), compression="never") as opened, copy.open("wb") as file:
            shutil.copyfileobj(opened.open("some:v1", name), file)
        with (model / "model.yaml").open("a") as model_yaml:
            model_yaml.write(f"# {'x' * 512}\n")  # across a block of the tar
        os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = run("rsync", "--no-whole-file", "--ignore-times", "--stats", current, backup).stdout
    literal = re.search(r"Literal data: ([\d,]+) bytes", said)
    assert literal, said
    assert 512 <= int(literal[1].replace(",", "")) < current.stat().st_size / 100
    assert backup.read_bytes() == current.read_bytes()
