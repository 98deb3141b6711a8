"""Verify: later digests must equal the first recorded ones."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.store.catalog.catalog import ModelStore
from bentofs.store.errors import BadModelError, NotFoundError
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.integrity.verify import VerifyOutcome, VerifyReport, verify_model
from bentofs.store.model.tag import Tag
from bentofs.store.storage.local import LocalStorage
from tests.harness import make_model, remove_model
from tests.store.users import an_ordinary_user, folder_of_an_ordinary_user

_TAG = Tag("iris", "v1")
_FILES: dict[str | bytes, bytes | int] = {"weights/a": b"aaaa", b"odd \xff": b"odd", "empty": b"", "void/": b""}


@pytest.fixture
def folder(store: Path) -> Path:
    return make_model(store, "iris:v1", _FILES)


@pytest.fixture
def digests(tmp_path: Path) -> Iterator[Baseline]:
    digests = Baseline(tmp_path / "state" / "digests.sqlite")
    yield digests
    digests.close()


def _verify(store: Path, digests: Baseline, *, accept: bool = False) -> VerifyReport:
    """Verify like a new process, as the command line does."""
    return verify_model(ModelStore(LocalStorage(str(store))), digests, _TAG, accept=accept)


def test_recorded_and_then_the_same(store: Path, folder: Path, digests: Baseline) -> None:
    first = _verify(store, digests)
    assert (first.outcome, first.file_count, first.problems) == (VerifyOutcome.RECORDED, 4, [])
    assert first.size == 7 + (folder / "model.yaml").stat().st_size
    assert "recorded" in first.sentence()
    for _ in range(2):
        report = _verify(store, digests)
        assert (report.outcome, report.problems) == (VerifyOutcome.SAME, [])
        assert "the same as recorded (4 files" in report.sentence()


def test_a_copy_with_other_times_is_the_same(store: Path, folder: Path, digests: Baseline) -> None:
    _verify(store, digests)
    os.utime(folder / "weights" / "a", (5, 5))
    (folder / "weights" / "a").write_bytes(b"aaaa")
    assert _verify(store, digests).outcome is VerifyOutcome.SAME


def _flip_a_bit(path: Path) -> None:
    """Flip a bit like a failing disk: neither size nor mtime shows it."""
    look = path.stat()
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(look.st_atime_ns, look.st_mtime_ns))


def test_every_difference_is_named(store: Path, folder: Path, digests: Baseline) -> None:
    _verify(store, digests)
    _flip_a_bit(folder / "weights" / "a")
    os.unlink(os.path.join(os.fsencode(folder), b"odd \xff"))
    (folder / "weights" / "new").write_bytes(b"")
    os.utime(folder, (1, 1))
    for _ in range(2):
        report = _verify(store, digests)
        assert report.outcome is VerifyOutcome.DIFFERS
        assert dict(report.problems) == {
            "weights/a": VerifyOutcome.DIFFERS,
            os.fsdecode(b"odd \xff"): VerifyOutcome.MISSING,
            "weights/new": VerifyOutcome.NEW,
        }
        assert report.sentence().startswith("of 4 files")
        assert "3 differ" in report.sentence()


@pytest.mark.parametrize("what", ["bit", "missing", "new"])
def test_one_difference_is_enough(store: Path, folder: Path, digests: Baseline, what: str) -> None:
    _verify(store, digests)
    if what == "bit":
        _flip_a_bit(folder / "weights" / "a")
    elif what == "missing":
        (folder / "weights" / "a").unlink()
    else:
        (folder / "weights" / "new").write_bytes(b"")
    report = _verify(store, digests)
    assert (report.outcome, len(report.problems)) == (VerifyOutcome.DIFFERS, 1)


def test_accepted_it_is_the_record(store: Path, folder: Path, digests: Baseline) -> None:
    _verify(store, digests)
    _flip_a_bit(folder / "weights" / "a")
    (folder / "weights" / "new").write_bytes(b"new")
    assert _verify(store, digests, accept=True).outcome is VerifyOutcome.RECORDED
    assert _verify(store, digests).outcome is VerifyOutcome.SAME
    (folder / "weights" / "new").unlink()
    assert _verify(store, digests).problems == [("weights/new", VerifyOutcome.MISSING)]


def test_a_model_saved_again_under_its_tag_is_a_new_one(store: Path, folder: Path, digests: Baseline) -> None:
    _verify(store, digests)
    remove_model(store, "iris:v1")
    make_model(store, "iris:v1", {"other": b"other"}, creation_time="2026-02-02T00:00:00+00:00")
    assert _verify(store, digests).outcome is VerifyOutcome.RECORDED
    assert folder.exists()


def test_models_and_stores_are_told_apart(store: Path, folder: Path, digests: Baseline, tmp_path: Path) -> None:
    _verify(store, digests)
    (tmp_path / "other").mkdir()
    make_model(tmp_path / "other", "iris:v1", {"weights/a": b"bbbb"})
    assert _verify(tmp_path / "other", digests).outcome is VerifyOutcome.RECORDED
    assert _verify(store, digests).outcome is VerifyOutcome.SAME
    assert folder.exists()


@pytest.mark.expect_log("weights/a cannot be read")
@pytest.mark.parametrize("accept", [False, True])
def test_an_unreadable_file_is_told_from_a_differing_one_and_keeps_what_was_recorded(
    tmp_path: Path, accept: bool
) -> None:
    digests = Baseline(tmp_path / "state" / "digests.sqlite")
    with folder_of_an_ordinary_user() as store, an_ordinary_user():
        folder = make_model(store, "iris:v1", _FILES)
        assert _verify(store, digests).outcome is VerifyOutcome.RECORDED
        (folder / "weights" / "a").chmod(0)
        report = _verify(store, digests, accept=accept)
        assert (report.outcome, report.problems) == (
            VerifyOutcome.UNREADABLE,
            [("weights/a", VerifyOutcome.UNREADABLE)],
        )
        assert report.sentence().endswith("1 could not be read")
        (folder / "weights" / "a").chmod(0o600)
        _flip_a_bit(folder / "weights" / "a")
        assert _verify(store, digests).problems == [("weights/a", VerifyOutcome.DIFFERS)]
    digests.close()


@pytest.mark.expect_log("weights/a cannot be read")
def test_the_first_time_with_an_unreadable_file_records_nothing(tmp_path: Path) -> None:
    digests = Baseline(tmp_path / "state" / "digests.sqlite")
    with folder_of_an_ordinary_user() as store, an_ordinary_user():
        folder = make_model(store, "iris:v1", _FILES)
        (folder / "weights" / "a").chmod(0)
        assert _verify(store, digests).outcome is VerifyOutcome.UNREADABLE
        (folder / "weights" / "a").chmod(0o600)
        assert _verify(store, digests).outcome is VerifyOutcome.RECORDED
    digests.close()


def test_what_is_not_there(store: Path, digests: Baseline) -> None:
    with pytest.raises(NotFoundError):
        _verify(store, digests)


@pytest.mark.expect_log("iris:v1 is not YAML")
def test_what_is_no_model(store: Path, folder: Path, digests: Baseline) -> None:
    (folder / "model.yaml").write_bytes(b"{")
    os.utime(folder / "model.yaml", (1, 1))
    with pytest.raises(BadModelError):
        _verify(store, digests)
