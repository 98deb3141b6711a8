"""BentoML itself is the judge: every model that it made and that is copied out of a mount imports again as the same
model."""

import functools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bentofs.store.api import export_model, import_model
from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.storage.local import LocalStorage
from tests.harness import Mounted, home_of, make_model, run
from tests.interop.conftest import Judge

EXPORTS = {
    **{form: f".{form}" for form in ("bentomodel", "tar", "zip")},
    **{form: f".tar.{form}" for form in ("gz", "xz", "bz2")},
    "folder": "",
}
FORMATS = (".bentomodel", ".tar", ".tar.gz", ".zip", "folder")


@pytest.fixture(scope="module")
def mount(made_by_bentoml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(made_by_bentoml / "bentoml" / "models", tmp_path_factory.mktemp("mount")) as mounted:
        yield mounted


@functools.cache
def described(judge: Judge, base: Path) -> dict[str, dict[str, Any]]:
    return judge.describe(base)


def copied_out(mount: Mounted, tag: str, form: str, target: Path) -> str:
    """Copy one model out with cp. Return the argument for BentoML's import."""
    name, version = tag.split(":")
    if form == "folder":
        copy = target / f"{name}-{version}"
        run("cp", "-r", mount.path / "by-format" / "folder" / name / version, copy)
        return f"{copy}::folder"
    run("cp", mount.archive(tag, form), target)
    return str(target / f"{name}-{version}{form}")


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this process from reading or writing the user's own files."""
    for variable, folder in home_of(tmp_path).items():
        monkeypatch.setenv(variable, folder)


@pytest.mark.usefixtures("own_home")
def test_every_release_imports_every_archive(
    mount: Mounted, made_by_bentoml: Path, release: Judge, tmp_path: Path
) -> None:
    """Every release imports every archive, also of a model whose files are named like Windows drives: 1.4.40 refuses
    such names in other programs' archives."""
    store, target = tmp_path / "bentoml" / "models", tmp_path / "copied"
    shutil.copytree(made_by_bentoml / "bentoml" / "models", store)
    make_model(store, "drives:v1", {"c:like a drive.txt": b"c", "D:/in a folder": b"d", "e:/": b"", "f/g:h": b"h"})
    tags = [*(str(tag) for tag in ModelStore(LocalStorage(str(mount.store))).tags()), "drives:v1"]
    assert len(tags) == 4
    target.mkdir()
    items = []
    for form in FORMATS:
        items += [f"{form}={copied_out(mount, tag, form, target)}" for tag in tags[:-1]]
        # Releases before 1.4.20 look in a zip for names in the form in which they write them.
        if form != "folder" and not (form == ".zip" and release.release in ("1.3.22", "1.2")):
            items.append(f"{form}={export_model('drives:v1', str(target / f'drives{form}'), store=str(store))}")
    described = json.loads(release.run(tmp_path, "imported-each", str(tmp_path), *items))
    assert described.keys() == {"original", *FORMATS}
    for form, imported in described.items():
        assert set(tags) - {"drives:v1"} <= imported.keys()
        for tag, told in imported.items():
            # diff is silent only when names, empty folders and every byte agree.
            folders = [tmp_path / place / tag.replace(":", "/") for place in ("original", form)]
            assert run("diff", "-r", *folders).stdout == ""
            assert {**told, "path": ""} == {**described["original"][tag], "path": ""}


@pytest.mark.usefixtures("own_home")
def test_what_every_release_exports_is_imported(release: Judge, tmp_path: Path) -> None:
    store = tmp_path / "bentoml" / "models"
    make_model(store, "iris:v1", {"weights.bin": bytes(range(256)) * 999, "ü/模型": b"x", "empty": b"", "a/b/": b""})
    exported = {form: tmp_path / f"iris{suffix}" for form, suffix in EXPORTS.items()}
    release.run(tmp_path, "export-each", "iris:v1", *(f"{path}={form}" for form, path in exported.items()))
    for form, path in exported.items():
        tag = import_model(str(path), store=str(tmp_path / form))
        assert run("diff", "-r", store / tag.path, tmp_path / form / tag.path).stdout == ""


def test_by_format_folder_is_a_store_to_bentofs_as_well(mount: Mounted, made_by_bentoml: Path, judge: Judge) -> None:
    """`by-format/folder` is a store to bentofs too, BentoML's mark of a finished save included."""
    models = ModelStore(LocalStorage(str(mount.path / "by-format" / "folder")))
    assert [str(tag) for tag in models.tags()] == sorted(described(judge, made_by_bentoml))


def test_models_under_test_hold_what_bentoml_allows(made_by_bentoml: Path, judge: Judge) -> None:
    """The models under test hold all that BentoML allows. Else the comparison above might compare nothing with
    nothing."""
    rich = described(judge, made_by_bentoml)["rich:v1.0-rc.1"]
    assert rich["labels"]["owner"] == "Zoë"
    assert (
        rich["custom_objects"]
        == "{'vocabulary': ['a', 'ß', '語'], 'limits': {'low': -1, 'high': 1.25}, 'codes': (1, 2)}"
    )
    for expected in (
        "b'\\x00\\xff raw'",
        "datetime.date(2024, 2, 29)",
        "inf",
        "'tuple': [1, 'b']",
        "0.5: 'a float as key'",
    ):
        assert expected in rich["metadata"]
    assert "batch_dim=(0, 1)" in rich["signatures"]
    assert "3.2.1" in rich["context"]
    assert (Path(rich["path"]) / "an empty folder" / "within").is_dir()
    assert (Path(rich["path"]) / "names" / "Ünïcödé 模型.txt").is_file()


def test_command_line_import(mount: Mounted, judge: Judge, tmp_path: Path) -> None:
    """`bentoml models import` works straight from the mount."""
    archive = mount.archive("rich:v1.0-rc.1", ".bentomodel")
    judge.cli(tmp_path, "models", "import", str(archive))
    assert "rich:v1.0-rc.1" in judge.describe(tmp_path)


def test_folder_is_laid_out_as_a_store(mount: Mounted, made_by_bentoml: Path, judge: Judge, tmp_path: Path) -> None:
    """`by-format/folder` copied whole is a store that BentoML reads, `latest` included."""
    target = tmp_path / "bentoml" / "models"
    target.parent.mkdir(parents=True)
    run("cp", "-r", mount.path / "by-format" / "folder", target)
    assert run("diff", "-r", made_by_bentoml / "bentoml" / "models", target).stdout == ""
    assert judge.describe(tmp_path).keys() == described(judge, made_by_bentoml).keys()
