"""BentoML itself is the judge of models published into its store: it finds them whole, and the same one is latest."""

import datetime
import itertools
import shutil
from pathlib import Path

import pytest

from bentofs.store.errors import ModelExistsError
from bentofs.store.publishing.base import Outcome
from bentofs.store.staging.area import StagingArea
from tests.harness import make_model
from tests.interop.conftest import Judge
from tests.store.staged import latest, publish, publish_files

_YEARS = (2025, 2025, 2026)


def _store(base: Path) -> Path:
    store = base / "bentoml" / "models"
    store.mkdir(parents=True)
    return store


def test_what_was_published_is_listed_and_found(judge: Judge, tmp_path: Path) -> None:
    store = _store(tmp_path)
    session = StagingArea(str(store)).open_session()
    publish_files(session, "iris:v1", {"w": b"old", "empty/": b""})
    publish_files(session, "iris:v1", {"w": b"new", "deep/er/x": b"x"}, overwrite=True)
    publish_files(session, "m.tar.gz:v1.zip", {})
    # The session is open: the staging area stands beside the store.
    listed = judge.cli(tmp_path, "models", "list")
    assert "iris:v1" in listed
    assert "m.tar.gz:v1.zip" in listed
    assert "version: v1" in judge.cli(tmp_path, "models", "get", "iris:latest", "-o", "yaml")
    judge.run(tmp_path, "delete", "iris:v1")
    assert publish_files(session, "iris:v1", {"w": b"again"}) is Outcome.IMPORTED
    found = judge.describe(tmp_path)
    assert found.keys() == {"iris:v1", "m.tar.gz:v1.zip"}
    assert (Path(found["iris:v1"]["path"]) / "w").read_bytes() == b"again"
    session.close()


def test_what_bentoml_saved_is_the_same_or_refused(made_by_bentoml: Path, tmp_path: Path) -> None:
    store = tmp_path / "bentoml" / "models"
    shutil.copytree(made_by_bentoml / "bentoml" / "models", store)  # with BentoML's marks
    session = StagingArea(str(store)).open_session()
    saved = store / "rich" / "v1.0-rc.1"
    tag, created = "rich:v1.0-rc.1", datetime.datetime.now(datetime.timezone.utc).isoformat()
    staged = shutil.copytree(saved, session.new_staged_path())
    assert publish(session, staged, tag, created) is Outcome.UNCHANGED
    staged = shutil.copytree(saved, session.new_staged_path())
    Path(staged, "nested", "deeper", "and deeper", "leaf.txt").write_bytes(b"Leaf")
    with pytest.raises(ModelExistsError, match=r"leaf\.txt differs"):
        publish(session, staged, tag, created)
    session.close()


def test_latest_is_the_one_that_bentoml_would_choose(judge: Judge, tmp_path: Path) -> None:
    """BentoML and bentofs add models of one name in every order of their creation times, ties included. Both choose the
    same latest."""
    store = _store(tmp_path / "ours")
    session = StagingArea(str(store)).open_session()
    items = []
    for number, order in enumerate(itertools.permutations(enumerate(_YEARS))):
        for count in range(1, len(order) + 1):
            for version, year in order[:count]:  # one name for each prefix, since only the end is checked
                tag, created = f"name{number}-{count}:v{version}", f"{year}-01-01T00:00:00+00:00"
                items.append(f"{make_model(tmp_path / 'originals', tag, {}, creation_time=created)}::folder")
                publish_files(session, tag, {}, created)
    session.close()
    judge.run(tmp_path / "theirs", "import", *items)
    theirs = tmp_path / "theirs" / "bentoml" / "models"
    ours = {path.name: latest(store, path.name) for path in store.iterdir()}
    assert ours == {path.name: latest(theirs, path.name) for path in theirs.iterdir()}
    assert set(ours.values()) == {"v0", "v1", "v2"}
