"""BentoML itself as the judge: whatever it made, copied out of a mount, it imports again as the same model."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Mounted, run
from tests.interop.conftest import Judge

FORMATS = (".bentomodel", ".tar", ".tar.gz", ".zip", "folder")


@pytest.fixture(scope="module")
def mount(made_by_bentoml: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with Mounted(made_by_bentoml / "bentoml" / "models", tmp_path_factory.mktemp("mount")) as mounted:
        yield mounted


@functools.cache
def described(judge: Judge, base: Path) -> dict[str, dict[str, Any]]:
    return judge.describe(base)


def copied_out(mount: Mounted, tag: str, form: str, target: Path) -> str:
    """Copies one model out with cp; gives what to tell BentoML's import."""
    name, version = tag.split(":")
    if form == "folder":
        copy = target / f"{name}-{version}"
        run("cp", "-r", mount.path / "by-format" / "folder" / name / version, copy)
        return f"{copy}::folder"
    run("cp", mount.archive(tag, form), target)
    return str(target / f"{name}-{version}{form}")


@pytest.mark.parametrize("form", FORMATS)
def test_import_gives_the_same_models(
    mount: Mounted, made_by_bentoml: Path, judge: Judge, form: str, tmp_path: Path
) -> None:
    originals = described(judge, made_by_bentoml)
    assert len(originals) == 3

    items = [copied_out(mount, tag, form, tmp_path) for tag in originals]
    imported = judge.imported(tmp_path, *items)
    assert imported.keys() == originals.keys()
    for tag, original in originals.items():
        # diff is silent only when names, empty folders and every byte agree.
        assert run("diff", "-r", original["path"], imported[tag]["path"]).stdout == ""
        assert {**imported[tag], "path": ""} == {**original, "path": ""}


def test_models_under_test_hold_what_bentoml_allows(made_by_bentoml: Path, judge: Judge) -> None:
    """Else the comparison above might compare nothing with nothing."""
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
    """`bentoml models import`, straight from the mount."""
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
