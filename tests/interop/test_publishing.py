"""BentoML itself as the judge of what was published into its store: it finds it whole, and the same one latest."""

import itertools
from pathlib import Path

import pytest

from store.errors import ModelExistsError
from store.publish import Outcome
from store.staging import StagingArea
from tests.harness import make_model
from tests.interop.conftest import Judge
from tests.store.staged import latest, publish_files

_YEARS = (2024, 2025, 2025, 2026)


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
    found = judge.describe(tmp_path)  # while the staging area stands beside the store
    assert found.keys() == {"iris:v1", "m.tar.gz:v1.zip"}
    assert (Path(found["iris:v1"]["path"]) / "w").read_bytes() == b"new"
    assert "iris:v1" in judge.cli(tmp_path, "models", "list")
    assert "version: v1" in judge.cli(tmp_path, "models", "get", "iris:latest", "-o", "yaml")
    judge.run(tmp_path, "delete", "iris:v1")
    assert publish_files(session, "iris:v1", {"w": b"again"}) is Outcome.IMPORTED
    assert judge.describe(tmp_path).keys() == {"iris:v1", "m.tar.gz:v1.zip"}
    session.close()


def test_what_bentoml_saved_is_the_same_or_refused(judge: Judge, tmp_path: Path) -> None:
    original = make_model(tmp_path / "original", "iris:v1", {"w": b"w", "deep/x": b"x"})
    judge.run(tmp_path, "import", f"{original}::folder")
    store = tmp_path / "bentoml" / "models"
    session = StagingArea(str(store)).open_session()
    # BentoML writes model.yaml in its own way, so this is what it made of it.
    (original / "model.yaml").write_bytes((store / "iris" / "v1" / "model.yaml").read_bytes())
    with pytest.raises(ModelExistsError):
        publish_files(session, "iris:v1", {"w": b"W", "deep/x": b"x"})
    assert judge.describe(tmp_path).keys() == {"iris:v1"}
    session.close()


def test_latest_is_the_one_that_bentoml_would_choose(judge: Judge, tmp_path: Path) -> None:
    """Models of one name, brought in by BentoML and by us in every order of their creation times, ties included."""
    orders = sorted(set(itertools.permutations(enumerate(_YEARS))))
    items = []
    store = _store(tmp_path / "ours")
    session = StagingArea(str(store)).open_session()
    for number, order in enumerate(orders):
        for version, year in order:
            tag, created = f"name{number}:v{version}", f"{year}-01-01T00:00:00+00:00"
            items.append(f"{make_model(tmp_path / 'originals', tag, {}, creation_time=created)}::folder")
            publish_files(session, tag, {}, created)
    session.close()
    judge.run(tmp_path / "theirs", "import", *items)
    theirs = tmp_path / "theirs" / "bentoml" / "models"
    names = [f"name{number}" for number in range(len(orders))]
    assert [latest(store, name) for name in names] == [latest(theirs, name) for name in names]
    assert {latest(store, name) for name in names} == {"v3"}
    partial = [(latest(store, name), latest(theirs, name)) for name in names]
    assert all(ours == theirs for ours, theirs in partial)
