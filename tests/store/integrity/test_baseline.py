"""The record of digests: kept, private, and replaced only on request."""

import datetime
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.integrity.baseline import Baseline, default_path
from bentofs.store.model.tag import Tag
from tests.store.staged import in_a_namespace_of_its_own

_TAG = Tag("iris", "v1")
_CREATED = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
_LATER = _CREATED + datetime.timedelta(microseconds=1)
_FILES = {b"model.yaml": "a" * 64, b"odd \xff": "b" * 64}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "digests.sqlite"


def _found(path: Path, store: str, tag: Tag = _TAG, created: datetime.datetime = _CREATED) -> dict[bytes, str]:
    """Read the record like a new process."""
    digests = Baseline(path)
    try:
        return digests.of(store, tag, created)
    finally:
        digests.close()


def test_kept_by_store_tag_and_creation_time(path: Path) -> None:
    digests = Baseline(path)
    assert digests.of("/models", _TAG, _CREATED) == {}
    assert digests.record("/models", _TAG, _CREATED, _FILES)
    digests.close()
    assert _found(path, "/models") == _FILES
    assert _found(path, "/other") == {}
    assert _found(path, "/models", Tag("iris", "v2")) == {}
    assert _found(path, "/models", created=_LATER) == {}


def test_what_is_recorded_replaces_all_that_was_known_of_the_tag(path: Path) -> None:
    digests = Baseline(path)
    digests.record("/models", _TAG, _CREATED, _FILES)
    digests.record("/models", _TAG, _LATER, {b"one": "c" * 64})
    assert digests.of("/models", _TAG, _CREATED) == {}
    assert digests.of("/models", _TAG, _LATER) == {b"one": "c" * 64}
    digests.close()


def test_the_first_record_stays_unless_replacing_is_asked_for(path: Path) -> None:
    digests = Baseline(path)
    digests.record("/models", _TAG, _CREATED, _FILES)
    assert digests.record("/models", _TAG, _CREATED, {b"one": "c" * 64}, first=True)
    assert digests.of("/models", _TAG, _CREATED) == _FILES
    digests.close()


def test_a_store_is_known_by_its_real_path(path: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "link").symlink_to("models")
    digests = Baseline(path)
    digests.record(str(tmp_path / "link"), _TAG, _CREATED, _FILES)
    digests.close()
    assert _found(path, str(tmp_path / "models")) == _FILES


def test_a_store_in_a_bucket_is_the_same_from_everywhere(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory does not matter. A mount has another one than the caller of `verify`."""
    monkeypatch.chdir("/")
    digests = Baseline(path)
    digests.record("s3://bucket/models", _TAG, _CREATED, _FILES)
    digests.close()
    monkeypatch.chdir(tmp_path)
    assert _found(path, "s3://bucket/models") == _FILES


def test_it_is_private_and_lies_in_the_state_directory(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0)
    try:
        Baseline(path).close()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "bentofs" / "digests.sqlite"


def test_what_cannot_be_kept_because_another_process_writes_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., None]
) -> None:
    monkeypatch.setattr("bentofs.store.integrity.baseline._BUSY_SECONDS", 0.1)
    expect_log("record of digests .* is in use", 1)
    digests = Baseline(path)
    digests.record("/models", _TAG, _CREATED, _FILES)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not digests.record("/models", _TAG, _CREATED, {})
        other.execute("ROLLBACK")
    other.close()
    assert digests.of("/models", _TAG, _CREATED) == _FILES
    digests.close()


def test_one_held_by_another_process_is_not_set_aside(
    path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[..., None]
) -> None:
    monkeypatch.setattr("bentofs.store.integrity.baseline._BUSY_SECONDS", 0.1)
    monkeypatch.setattr("bentofs.store.util.sqlite._OPEN_SECONDS", 0.1)
    expect_log("no record of digests is kept: .* locked", 1)
    digests = Baseline(path)
    digests.record("/models", _TAG, _CREATED, _FILES)
    digests.close()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        digests = Baseline(path)
        assert not digests.record("/models", _TAG, _CREATED, {})
        digests.close()
        other.execute("ROLLBACK")
    other.close()
    assert _found(path, "/models") == _FILES


def test_a_full_disk_costs_no_record(tmp_path: Path) -> None:
    """Opening a record needs room on its disk. On a full disk, the record must not be taken for damaged."""
    script = """
import datetime, logging, subprocess, sys
from pathlib import Path
from bentofs.store.integrity.baseline import Baseline
from bentofs.store.model.tag import Tag
logging.disable()
base, tag, created = Path(sys.argv[1]), Tag("iris", "v1"), datetime.datetime.now(datetime.timezone.utc)
files = {b"model.yaml": "a" * 64}
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", base], check=True)
path = base / "state" / "digests.sqlite"
digests = Baseline(path)
assert digests.record("/models", tag, created, files)
digests.close()
with open(base / "filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        pass
for _ in range(3):
    digests = Baseline(path)
    assert not digests.record("/models", tag, created, {b"other": "b" * 64})
    digests.close()
(base / "filler").unlink()
digests = Baseline(path)
assert digests.of("/models", tag, created) == files
assert not list(path.parent.glob("*.damaged*"))
"""
    in_a_namespace_of_its_own(script, tmp_path)


def test_where_nothing_can_be_kept_it_says_so(path: Path, expect_log: Callable[..., None]) -> None:
    expect_log("no record of digests is kept", 1)
    path.parent.parent.mkdir(exist_ok=True)
    path.parent.write_bytes(b"")
    digests = Baseline(path)
    assert not digests.record("/models", _TAG, _CREATED, _FILES)
    digests.close()


def test_a_damaged_record_is_kept_beside(path: Path, expect_log: Callable[..., None]) -> None:
    expect_log("record of digests .* is damaged", 1)
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    digests = Baseline(path)
    assert digests.record("/models", _TAG, _CREATED, _FILES)
    digests.close()
    assert _found(path, "/models") == _FILES
    assert path.with_name("digests.sqlite.damaged").read_bytes().startswith(b"not a database")
