"""Archives in directories, and directories with archives in them."""

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.harness import CREATION_TIME, make_model, run
from tests.incoming import (
    cp,
    imports,
    made,
    made_tar,
    same,
    tar_of,
)
from tests.mount.incoming.putting import Mount, in_incoming, nothing_is_staged


def test_archives_in_folders_are_imported_each_by_itself(store: Path, mounted: Mount, tmp_path: Path) -> None:
    mount = mounted(store)
    for number in range(3):
        target = tmp_path / "in" / "deep" / f"m{number}"
        target.mkdir(parents=True)
        shutil.move(made_tar(tmp_path, f"m{number}:v1"), target)
    shutil.move(made_tar(tmp_path, "top:v1"), tmp_path / "in" / "top.tar")
    run("cp", "-r", tmp_path / "in", mount.path / "incoming/")
    assert sorted(os.listdir(store)) == ["m0", "m1", "m2", "top"]
    assert [receipt["file"] for receipt in imports(mount)].count("in/deep/m1/m1-v1.tar") == 1
    run("rsync", "-a", tmp_path / "in", mount.path / "incoming/")
    assert (mount.path / "incoming/in/deep/m1/m1-v1.tar").stat().st_size > 0


@pytest.mark.parametrize("change", ["model.yaml", "weights"])
def test_an_archive_in_a_folder_whose_tag_is_taken_is_refused(
    store: Path, mounted: Mount, tmp_path: Path, change: str
) -> None:
    """Only a file that is no archive of a model is kept unchanged. Copying a model's archive in reports its refusal."""
    created = "2026-02-02T00:00:00+00:00" if change == "model.yaml" else CREATION_TIME
    make_model(store, "m:v1", {"w": b"old"}, creation_time=created)
    mount = mounted(store)
    mount.expect_log("in/m-v1.tar was not imported: m:v1 is in the store", times=1)
    (tmp_path / "in").mkdir()
    shutil.move(made_tar(tmp_path, "m:v1"), tmp_path / "in")
    copied = cp("-r", tmp_path / "in", mount.path / "incoming")
    assert copied.returncode == 1
    assert "File exists" in copied.stderr
    assert "is in the store" in (mount.path / "incoming/in/m-v1.tar.error").read_text()


@pytest.mark.parametrize("form", ["w", "w:gz", "w:xz", "zip"])
def test_a_damaged_archive_in_a_folder_is_refused_if_it_is_a_models(
    store: Path, mounted: Mount, tmp_path: Path, form: str
) -> None:
    """Copying a backup in reports the refused archives. A file that may be a model's own is kept unchanged."""
    mount = mounted(store)
    mount.expect_log("in/m.tar.gz was not imported: the archive is", times=1)
    (tmp_path / "in").mkdir()
    whole = tmp_path / "whole"
    model = made(tmp_path, "m:v1", {"w": os.urandom(300_000)})
    if form == "zip":
        run("zip", "-qr", whole, "model.yaml", "w", cwd=model)
        whole = whole.with_suffix(".zip")
    else:
        tar_of(model, whole, form)
    content = whole.read_bytes()
    (tmp_path / "in/m.tar.gz").write_bytes(content[:200_000])
    (tmp_path / "in/cut-early.tar.gz").write_bytes(content[:20])
    copied = cp("-r", tmp_path / "in", mount.path / "incoming")
    assert copied.returncode == 1
    assert copied.stderr.count("Bad message") == 1
    assert "cut short" in (mount.path / "incoming/in/m.tar.gz.error").read_text()
    assert (mount.path / "incoming/in/cut-early.tar.gz").read_bytes() == content[:20]


def test_a_folder_that_lost_an_archive_is_no_whole_model_under_another_name_either(
    store: Path, mounted: Mount, tmp_path: Path
) -> None:
    """An archive that came before the model.yaml was imported by itself, and is missing in the directory."""
    mount = mounted(store)
    incoming = mount.path / "incoming"
    (incoming / "m.new").mkdir()
    run("cp", made_tar(tmp_path, "inner:v1"), incoming / "m.new")
    run("mv", incoming / "m.new", incoming / "m")
    for path in made(tmp_path, "m:v1").iterdir():
        run("cp", path, incoming / "m")
    mount.expect_log("m was not imported: m/inner-v1.tar came before the model.yaml", times=1)
    assert subprocess.run(["sync", incoming / "m"], check=False, timeout=30).returncode == 1
    assert os.listdir(store) == ["inner"]
    # After its removal, the next directory of that name is another one.
    run("rm", "-r", incoming / "m")
    run("cp", "-r", tmp_path / "made/m/v1", incoming / "m")
    run("sync", incoming / "m")
    same(tmp_path / "made/m/v1", store / "m/v1")


@pytest.mark.parametrize("yaml_first", [True, False])
def test_a_model_that_holds_archives_comes_in_whole(
    store: Path, mounted: Mount, tmp_path: Path, yaml_first: bool
) -> None:
    """A model's own .zip, .tar.gz and .pt files are not models. Once the outer model is known, archives of models
    inside it are not imported, either."""
    mount = mounted(store)
    model = made(tmp_path, "m:v1", {"d/e": b"e"})
    with zipfile.ZipFile(model / "weights.pt", "w") as file:
        file.writestr("archive/data.pkl", os.urandom(10_000))
    shutil.copy(model / "weights.pt", model / "tokenizer.zip")
    run("tar", "czf", model / "assets.tar.gz", "-C", model / "d", ".")
    (model / "broken.tar").write_bytes(b"not a tar at all")
    if yaml_first:  # otherwise it is an archive in a directory, and is rightly imported by itself
        shutil.copy(made_tar(tmp_path, "inner:v1"), model / "d" / "inner.tar")
    files = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file() and path.name != "model.yaml")
    files = [Path("model.yaml"), *files] if yaml_first else [*files, Path("model.yaml")]
    for path in files:
        target = mount.path / "incoming/m" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        run("cp", model / path, target)
    run("sync", mount.path / "incoming/m")
    same(model, store / "m/v1")
    assert in_incoming(mount) == []
    nothing_is_staged(mount)
