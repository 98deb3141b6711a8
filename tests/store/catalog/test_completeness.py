"""When a model counts as saved: by the marks that releases of BentoML leave, and by quiet where they leave none."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.catalog.completeness import QUIET_NS
from bentofs.store.errors import NotFoundError
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model, run
from tests.store.clock import Clock
from tests.waiting import wait_until_settled

Looks = Callable[[], ModelStore]
ExpectLog = Callable[..., None]
_TAG = Tag("iris", "v1")


def _old_release(store: Path, tag: str, *, latest: bool = False) -> Path:
    """Make a model like releases before 1.4.20. They copy no times, so each time is that of the last change."""
    folder = make_model(store, tag, {"sub/weights": b"w"}, latest=False)
    for path in [*folder.rglob("*"), folder]:
        _touch(path)
    if latest:
        (folder.parent / "latest").write_text(folder.name)
    return folder


def _touch(path: Path) -> None:
    """Make mtime and ctime equal, as a change does. `os.utime` with a given time cannot."""
    os.utime(path)
    look = path.stat()
    assert look.st_mtime_ns == look.st_ctime_ns


def _shown(models: Looks) -> bool:
    catalogue = models()
    try:
        assert catalogue.model(_TAG).tag == _TAG
    except NotFoundError:
        assert _TAG not in catalogue.tags()
        return False
    assert _TAG in catalogue.tags()
    return True


def test_the_mark_is_enough(store: Path, models: Looks) -> None:
    make_model(store, "iris:v1", latest=False)
    assert _shown(models)


def test_a_save_under_way_is_not_shown_and_then_is(store: Path, models: Looks) -> None:
    folder = make_model(store, "iris:v1", {"a": b"a"}, complete=False)
    assert not _shown(models)
    (folder / "weights").write_bytes(b"more")
    assert not _shown(models)
    os.utime(folder, (1, 1))  # like the end of `shutil.copytree`
    assert _shown(models)


def test_a_save_that_was_killed_is_never_shown_and_named(
    store: Path, models: Looks, clock: Clock, expect_log: ExpectLog
) -> None:
    make_model(store, "iris:v1", complete=False)
    make_model(store, "iris:v0")
    assert not _shown(models)
    assert models().tags() == [Tag("iris", "v0")]
    expect_log("iris:v1 is not shown.*delete the directory", 1)
    for seconds in (10, 50, 3600, 10**6):
        clock.advance(seconds)
        assert not _shown(models)
        assert models().tags() == [Tag("iris", "v0")]
    (store / "iris" / "latest").write_text("v1")
    assert not _shown(models)


def test_why_a_model_that_is_asked_for_is_left_out(store: Path, models: Looks, expect_log: ExpectLog) -> None:
    """A model that was edited or copied by hand is there for everybody who looks into the store. The error says why it
    is left out."""
    folder = make_model(store, "iris:v1", {"a": b"a"})
    (folder / "model.yaml").rename(folder / "old")
    (folder / "model.yaml").write_bytes((folder / "old").read_bytes())
    (folder / "old").unlink()
    for text, sentence in (
        ("iris:v1", r"^iris:v1 is left out: by the times .* `touch -d yesterday` on its directory has it shown$"),
        ("iris", r"^iris has no models in .* but those that are left out: iris:v1 is left out: by the times "),
        ("iris:v2", r"^iris:v2 is not in the store "),
        ("lily:v1", r"^lily has no models in "),
        ("lily", r"^lily has no models in "),
    ):
        with pytest.raises(NotFoundError, match=sentence):
            models().model(models().find(text))
    run("touch", "-d", "yesterday", folder)
    assert _shown(models)
    (folder / "model.yaml").unlink()
    expect_log("holds no model.yaml; it is left out")
    with pytest.raises(NotFoundError, match=r"^iris:v1 is left out: its directory in .* holds no model.yaml"):
        models().model(models().find("iris:v1"))


@pytest.mark.parametrize("changed", ["sub/weights", "sub/new", "weights"])
def test_a_dead_save_is_named_ten_seconds_after_its_last_change_wherever_that_was(
    store: Path, clock: Clock, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture, changed: str
) -> None:
    folder = make_model(store, "iris:v1", {"sub/weights": b"w"}, complete=False)
    time.sleep(0.3)  # so that the change is more than a tenth of a second younger than the rest
    (folder / changed).write_bytes(b"changed")
    catalogue = ModelStore(LocalStorage(str(store)))
    _advance_to(clock, folder, 9.9)
    assert catalogue.tags() == []
    assert caplog.records == []
    clock.advance(0.5)
    expect_log("iris:v1 is not shown", 1)
    assert catalogue.tags() == []


def _advance_to(clock: Clock, folder: Path, seconds: float) -> None:
    """Advance the clock to this many seconds after the last change in a directory."""
    newest = max(path.stat().st_ctime_ns for path in [folder, *folder.rglob("*")])
    clock.advance(seconds - (time.time_ns() - newest) / 1e9)


def test_an_old_release_when_latest_names_it(store: Path, models: Looks) -> None:
    folder = _old_release(store, "iris:v1")
    assert not _shown(models)
    (folder.parent / "latest").write_text("v1")
    assert _shown(models)


@pytest.mark.parametrize("before", ["another model of this version", "a copy of the store", "somebody asked for it"])
def test_an_old_release_that_latest_named_too_early(store: Path, models: Looks, before: str) -> None:
    """Three cases: a version removed by hand and saved again; a copy in which `latest` comes first; BentoML's own
    `get`, which rewrites a `latest` that names nothing, even during a save."""
    if before == "somebody asked for it":
        folder = _old_release(store, "iris:v1", latest=True)
        wait_until_settled(folder)
        (folder / "weights").write_bytes(b"still coming")
    else:
        (store / "iris").mkdir()
        (store / "iris" / "latest").write_text("v1")
        wait_until_settled(store)
        folder = _old_release(store, "iris:v1")
    assert not _shown(models)
    (folder.parent / "latest").write_text("v1")
    assert _shown(models)


def test_an_old_release_of_another_version_after_a_quiet_minute(store: Path, models: Looks, clock: Clock) -> None:
    _old_release(store, "iris:v1")
    make_model(store, "iris:v2", latest=True)
    assert not _shown(models)
    clock.advance(50)
    assert not _shown(models)
    clock.advance(8)
    assert _shown(models)


@pytest.mark.parametrize("changed", ["sub/weights", "sub/new", "model.yaml"])
def test_each_change_begins_the_minute_anew(store: Path, clock: Clock, changed: str) -> None:
    folder = _old_release(store, "iris:v1")
    time.sleep(0.3)  # so that the change is more than a tenth of a second younger than the rest
    with (folder / changed).open("ab") as file:
        file.write(b"\n")
    catalogue = ModelStore(LocalStorage(str(store)))
    _advance_to(clock, folder, QUIET_NS / 1e9 - 0.1)
    assert catalogue.tags() == []
    clock.advance(0.5)
    assert catalogue.tags() == [_TAG]


def test_once_complete_it_stays_shown_while_nothing_changes(store: Path, models: Looks) -> None:
    folder = _old_release(store, "iris:v1", latest=True)
    assert _shown(models)
    make_model(store, "iris:v2", latest=True)
    assert (folder.parent / "latest").read_text() == "v2"
    assert _shown(models)


@pytest.mark.parametrize("changed", ["model.yaml", "sub/weights"])
def test_once_complete_it_stays_shown_when_it_is_edited(store: Path, models: Looks, changed: str) -> None:
    folder = _old_release(store, "iris:v1", latest=True)
    assert _shown(models)
    wait_until_settled(folder)
    with (folder / changed).open("ab") as file:
        file.write(b"\n")
    assert _shown(models)


def test_quiet_is_not_broken_by_another_version(store: Path, models: Looks, clock: Clock) -> None:
    _old_release(store, "iris:v1")
    clock.advance(40)
    assert not _shown(models)
    make_model(store, "iris:v2")
    clock.advance(20)
    assert _shown(models)


def test_a_model_deleted_and_saved_again_is_hidden_while_it_is_written(store: Path, models: Looks) -> None:
    folder = make_model(store, "iris:v1", {"weights": b"old"})
    assert _shown(models)
    folder.rename(store.parent / "old")
    folder = make_model(store, "iris:v1", {"weights": b"new"}, complete=False)
    assert not _shown(models)
    os.utime(folder, (1, 1))
    assert _shown(models)


def test_a_link_out_of_an_old_release_is_told_when_it_is_finished(
    store: Path, models: Looks, clock: Clock, expect_log: ExpectLog
) -> None:
    folder = make_model(store, "iris:v1", latest=False)
    (folder / "link").symlink_to("/etc/passwd")
    _touch(folder / "model.yaml")
    _touch(folder)
    assert models().tags() == []
    clock.advance(60)
    expect_log("iris/v1/link", 1)
    assert models().tags() == models().tags() == []
