"""Publishing: whole or not at all, whatever else happens to the store, to the disk, and to the process."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bentofs.store.errors import ModelExistsError, StoreUnwritableError
from bentofs.store.publishing.base import Outcome
from bentofs.store.staging.area import StagingArea
from bentofs.store.staging.session import Session
from tests.harness import ROOT, make_model, remove_model, run
from tests.store.staged import (
    content,
    contents,
    in_a_namespace_of_its_own,
    killed_at_every_step,
    latest,
    other_process,
    publish_files,
    said,
    shown,
    stage,
    without_exchanging_renames,
)
from tests.store.users import an_ordinary_user, folder_of_an_ordinary_user

ExpectLog = Callable[..., None]

OLD: dict[str | bytes, bytes | int] = {"w": b"old", "deep/er/x": b"1", "empty/": b""}
NEW: dict[str | bytes, bytes | int] = {"w": b"new", "other": b"2"}
_OLD = {"w": b"old", "deep/er/x": b"1"}
_NEW = {"w": b"new", "other": b"2"}


@pytest.fixture(params=["renameat2", "plain rename"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty store, on a file system with the renames that publishing works best with, and on one without."""
    with ExitStack() as stack:
        base = tmp_path
        if request.param == "plain rename":
            base = stack.enter_context(without_exchanging_renames(tmp_path))
        store = base / "bentoml" / "models"
        store.mkdir(parents=True)
        yield store


@pytest.fixture
def session(store: Path) -> Iterator[Session]:
    session = StagingArea(str(store)).open_session()
    yield session
    assert os.listdir(session.intents) == [], "every publication ends what it began"
    session.close()
    assert not Path(session.path).exists()


def test_a_model_is_there_and_complete_at_once(store: Path, session: Session) -> None:
    before = os.umask(0o027)
    try:
        root = stage(session, "iris:v1", OLD)
        os.chmod(root, 0o750)
        assert publish_files(session, "iris:v1", OLD) is Outcome.IMPORTED
    finally:
        os.umask(before)
    assert shown(store) == ["iris:v1"]
    assert contents(store) == {"iris:v1": _OLD}
    assert (store / "iris" / "v1" / "empty").is_dir()
    assert latest(store, "iris") == "v1"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (store / "iris", store / "iris" / "latest")}
    assert modes == {"iris": 0o750, "latest": 0o640}


@pytest.mark.parametrize("created", ["1950-01-01T00:00:00", "2999-01-01T00:00:00", "now", "0001-01-01T00:00:00"])
def test_complete_whenever_it_was_made(store: Path, session: Session, created: str) -> None:
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) if created == "now" else created
    publish_files(session, "iris:v1", OLD, f"{text}+00:00")
    assert shown(store) == ["iris:v1"]


def test_the_same_content_changes_nothing(store: Path, session: Session) -> None:
    publish_files(session, "iris:v1", OLD)
    (store / "iris" / "v1" / "w").chmod(0o600)
    before = {path: path.lstat() for path in store.rglob("*")}
    for overwrite in (False, True):
        root = stage(session, "iris:v1", OLD)
        assert publish_files(session, "iris:v1", OLD, overwrite=overwrite) is Outcome.UNCHANGED
        os.rename(root, Path(session.staged, "aside"))
        Path(session.staged, "aside").rename(root)
    after = {path: path.lstat() for path in store.rglob("*")}
    assert {path: look.st_ctime_ns for path, look in after.items()} == {
        path: look.st_ctime_ns for path, look in before.items()
    }


def _other_bytes(folder: Path) -> None:
    (folder / "w").write_bytes(b"olD")


def _missing(folder: Path) -> None:
    (folder / "w").unlink()


def _extra_folder(folder: Path) -> None:
    (folder / "a folder").mkdir()


def _file_for_folder(folder: Path) -> None:
    (folder / "empty").rmdir()
    (folder / "empty").write_bytes(b"")


def _other_labels(folder: Path) -> None:
    with (folder / "model.yaml").open("ab") as file:
        file.write(b"#\n")


def _leads_out(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")


def _far_in(folder: Path) -> None:
    content = bytearray(3_000_000)
    content[2_999_999] = 1
    (folder / "big").write_bytes(content)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (_other_bytes, "w"),
        (_missing, "w"),
        (_extra_folder, "a folder"),
        (_file_for_folder, "empty"),
        (_other_labels, "model.yaml"),
        (_leads_out, "link"),
        (_far_in, "big"),
    ],
)
def test_other_content_is_refused_and_replaced_on_demand(
    store: Path, session: Session, change: Callable[[Path], None], path: str
) -> None:
    files = {**OLD, "big": bytes(3_000_000)}
    folder = make_model(store, "iris:v1", files)
    change(folder)
    os.utime(folder, (1, 1))  # like a finished save
    before = content(folder)
    with pytest.raises(ModelExistsError, match=rf"iris:v1.*{path}.*--overwrite"):
        publish_files(session, "iris:v1", files)
    assert content(folder) == before
    assert publish_files(session, "iris:v1", files, overwrite=True) is Outcome.REPLACED
    assert contents(store) == {"iris:v1": {**_OLD, "big": bytes(3_000_000)}}
    assert shown(store) == ["iris:v1"]
    assert publish_files(session, "iris:v1", files) is Outcome.UNCHANGED
    # The replaced model is removed. The refused one is still staged.
    assert sum("w" in files for _, _, files in os.walk(session.staged)) == 1


@pytest.mark.parametrize(("there", "comes"), [([], ["w"]), (["w"], [])])
def test_an_exec_bit_is_no_content_but_taken_over_on_demand(
    store: Path, session: Session, there: list[str], comes: list[str]
) -> None:
    """BentoML drops the exec bit at every import."""
    make_model(store, "iris:v1", OLD, executable=there)
    before = (store / "iris/v1/w").stat()
    assert publish_files(session, "iris:v1", OLD, executable=comes) is Outcome.UNCHANGED
    assert (store / "iris/v1/w").stat().st_ctime_ns == before.st_ctime_ns
    assert publish_files(session, "iris:v1", OLD, executable=comes, overwrite=True) is Outcome.REPLACED
    assert os.access(store / "iris/v1/w", os.X_OK) == bool(comes)
    assert publish_files(session, "iris:v1", OLD, executable=comes, overwrite=True) is Outcome.UNCHANGED


def test_a_link_within_the_model_counts_as_what_it_leads_to(store: Path, session: Session) -> None:
    folder = make_model(store, "iris:v1", {"w": b"old"})
    (folder / "again").symlink_to("w")
    os.utime(folder, (1, 1))
    assert publish_files(session, "iris:v1", {"w": b"old", "again": b"old"}) is Outcome.UNCHANGED


def test_readers_of_a_replaced_model_keep_its_bytes(store: Path, session: Session) -> None:
    publish_files(session, "iris:v1", OLD)
    with (store / "iris" / "v1" / "w").open("rb") as reader:
        publish_files(session, "iris:v1", NEW, overwrite=True)
        assert reader.read() == b"old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_save_that_has_just_begun_is_never_disturbed(store: Path, session: Session, overwrite: bool) -> None:
    (store / "iris" / "v1").mkdir(parents=True)  # like BentoML's register()
    inode = (store / "iris" / "v1").stat().st_ino
    with pytest.raises(ModelExistsError, match="being saved by BentoML"):
        publish_files(session, "iris:v1", NEW, overwrite=overwrite)
    assert (store / "iris" / "v1").stat().st_ino == inode
    assert list((store / "iris" / "v1").iterdir()) == []
    (store / "iris" / "v1").rmdir()
    make_model(store, "iris:v1", OLD, complete=False)
    with pytest.raises(ModelExistsError, match="being saved by BentoML"):
        publish_files(session, "iris:v1", OLD, overwrite=overwrite)
    os.utime(store / "iris" / "v1", (1, 1))
    assert publish_files(session, "iris:v1", OLD, overwrite=overwrite) is Outcome.UNCHANGED


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_through_links(store: Path, session: Session, overwrite: bool) -> None:
    outside = store.parent / "outside"
    outside.mkdir()
    (store / "iris").symlink_to(outside)
    with pytest.raises(ModelExistsError, match=r"models/iris is in the way"):
        publish_files(session, "iris:v1", NEW, overwrite=overwrite)
    (store / "iris").unlink()
    (store / "iris").write_text("a file")
    with pytest.raises(ModelExistsError, match=r"models/iris is in the way"):
        publish_files(session, "iris:v1", NEW, overwrite=overwrite)
    (store / "iris").unlink()
    (store / "iris").mkdir()
    (store / "iris" / "v1").symlink_to(outside)
    with pytest.raises(ModelExistsError, match=r"iris/v1 is in the way"):
        publish_files(session, "iris:v1", NEW, overwrite=overwrite)
    (store / "iris" / "latest").symlink_to(outside / "file")
    (store / "iris" / "v1").unlink()
    assert publish_files(session, "iris:v1", NEW, overwrite=overwrite) is Outcome.IMPORTED
    assert (store / "iris" / "latest").is_symlink()
    assert list(outside.iterdir()) == []


_2024, _2025, _2026, _FUTURE = (f"{year}-01-01T00:00:00+00:00" for year in (2024, 2025, 2026, 2999))


def _save(store: Path, created: dict[str, str], latest: str | None) -> None:
    for version, time_ in created.items():
        make_model(store, f"iris:{version}", {"w": b"w"}, creation_time=time_, latest=False)
    if latest is not None:
        (store / "iris" / "latest").write_text(latest)


@pytest.mark.parametrize(
    ("saved", "before", "created", "after"),
    [
        ({}, None, _2025, "new"),
        ({}, None, _FUTURE, "new"),
        ({"a": _2024}, "a", _2025, "new"),
        ({"a": _2025}, "a", _2025, "new"),
        ({"a": _2026}, "a", _2025, "a"),
        ({"a": _2024}, "a\n", _2025, "new"),
        ({"a": _2026}, "a\n", _2025, "a\n"),
        ({"a": _2024, "b": _2026}, "a", _2025, "new"),  # the user's choice counts, as in BentoML
        ({"a": _2026}, None, _2025, "new"),  # BentoML does so, too
        ({"a": _2024, "b": _2026}, "gone", _2025, "b"),
        ({"a": _2024}, "gone", _2025, "new"),
        ({"a": _2024}, "../../etc", _2025, "new"),
        ({"a": _2024}, "", _2025, "new"),
        ({"a": _2024}, "a", _FUTURE, "a"),
        ({"a": _2024, "b": _2025}, None, _FUTURE, "b"),
        ({"a": _2024, "b": _2025}, "gone", _FUTURE, "b"),
        ({"a": _FUTURE}, "a", _2025, "a"),
    ],
)
def test_latest(
    store: Path, session: Session, saved: dict[str, str], before: str | None, created: str, after: str
) -> None:
    _save(store, saved, before)
    publish_files(session, "iris:new", NEW, created)
    assert latest(store, "iris") == after


def test_latest_stays_when_told_so(store: Path, session: Session) -> None:
    _save(store, {"a": _2024}, "a")
    publish_files(session, "iris:new", NEW, _2025, move_latest=False)
    assert latest(store, "iris") == "a"
    publish_files(session, "other:new", NEW, _2025, move_latest=False)
    assert latest(store, "other") == "new"


def test_a_version_called_latest(store: Path, session: Session) -> None:
    publish_files(session, "iris:latest", NEW)
    publish_files(session, "iris:v1", NEW)
    assert shown(store) == ["iris:latest", "iris:v1"]
    assert sorted(os.listdir(store / "iris")) == ["latest", "v1"]


def test_latest_that_cannot_be_read_is_told_but_the_model_is_there(store: Path, expect_log: ExpectLog) -> None:
    session = StagingArea(str(store)).open_session()
    _save(store, {"a": _2024}, "x" * 1000)
    expect_log("iris:v1 is in the store, but its `latest` may be", 1)
    assert publish_files(session, "iris:v1", NEW) is Outcome.IMPORTED
    (store / "iris" / "latest").write_text("a")
    session.close()
    _recovered(store)  # the next session repairs it
    assert latest(store, "iris") == "v1"


def test_a_store_that_may_no_longer_be_written() -> None:
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        store = folder / "models"
        store.mkdir()
        session = StagingArea(str(store)).open_session()
        store.chmod(0o500)
        with pytest.raises(StoreUnwritableError, match=r"models/iris cannot be written: Permission denied"):
            publish_files(session, "iris:v1", NEW)
        store.chmod(0o700)
        assert list(store.iterdir()) == []
        publish_files(session, "iris:v1", NEW)
        (store / "iris").chmod(0o500)
        for version in ("v1", "v2"):
            with pytest.raises(StoreUnwritableError, match=rf"iris/{version} cannot be written: Permission denied"):
                publish_files(session, f"iris:{version}", OLD, overwrite=True)
        (store / "iris").chmod(0o700)
        assert contents(store) == {"iris:v1": _NEW}
        session.close()


_FULL = """
import os, subprocess, sys
from pathlib import Path
from bentofs.store.errors import NoSpaceError
from bentofs.store.publishing.base import Outcome
from bentofs.store.staging.area import StagingArea
from tests.store.staged import contents, latest, publish_files
base, what = Path(sys.argv[1]), sys.argv[2]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "tmpfs", base], check=True)
store = base / "models"
store.mkdir()
session = StagingArea(str(store)).open_session()
old, new = {"w": b"old"}, {"w": b"new"}
publish_files(session, "iris:v0", old)
import tests.store.staged as staged
real = staged.publish
refused = []
for free in range(12):
    for path in base.glob("filler*"):
        path.unlink()

    def publish_on_a_full_disk(*arguments, **options):
        # Only now, since what is published was staged while there was room.
        number = 0
        while os.statvfs(base).f_ffree > free:
            (base / f"filler{number}").touch()
            number += 1
        return real(*arguments, **options)

    staged.publish = publish_on_a_full_disk
    tag = f"{what}:v{free}"
    before = contents(store)
    try:
        assert publish_files(session, tag, new, overwrite=True) in (Outcome.IMPORTED, Outcome.REPLACED)
        assert contents(store) == {**before, tag: {"w": b"new"}}, tag
    except NoSpaceError as error:
        assert "no space" in str(error)
        refused.append(free)
        assert contents(store) == before
assert refused and refused == list(range(len(refused))) and len(refused) < 8, refused
assert latest(store, what) == "v11"
"""


@pytest.mark.parametrize("what", ["iris", "new"])
def test_a_full_disk(tmp_path: Path, what: str) -> None:
    in_a_namespace_of_its_own(_FULL, tmp_path, what)


_CONTESTANT = """
import sys
from bentofs.store.errors import ModelExistsError
from bentofs.store.staging.area import StagingArea
from tests.store.staged import publish_files
store, text, overwrite, rounds = sys.argv[1:]
session = StagingArea(store).open_session()
print("ready", flush=True)
for number in range(int(rounds)):
    sys.stdin.readline()
    try:
        outcome = publish_files(session, f"iris:v{number}", {"w": text.encode()}, overwrite=overwrite == "yes")
        print(outcome.value, flush=True)
    except ModelExistsError:
        print("exists", flush=True)
session.close()
"""


@pytest.mark.parametrize(
    ("texts", "overwrite", "outcomes"),
    [
        (("a", "a"), "no", {("imported", "unchanged")}),
        (("a", "b"), "no", {("exists", "imported")}),
        (("a", "b"), "yes", {("imported", "replaced")}),
    ],
)
def test_two_processes_publish_one_tag_at_once(
    store: Path, texts: tuple[str, str], overwrite: str, outcomes: set[tuple[str, str]]
) -> None:
    rounds = 25
    with ExitStack() as stack:
        contestants = [
            stack.enter_context(other_process(_CONTESTANT, store, text, overwrite, str(rounds))) for text in texts
        ]
        for process in contestants:
            said(process, "ready")
        for number in range(rounds):
            for process in contestants:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
            found = [process.stdout.readline().strip() for process in contestants if process.stdout is not None]
            if overwrite == "yes" and "plain rename" in os.environ.get("PYTEST_CURRENT_TEST", ""):
                assert set(found) <= {"imported", "replaced", "exists"}, "for a moment there is no model, or a claim"
                assert found != ["exists", "exists"]
            else:
                assert tuple(sorted(found)) in outcomes
            winner = found.index("replaced" if "replaced" in found else "imported")
            assert content(store / "iris" / f"v{number}") == {"w": texts[winner].encode()}
    assert len(contents(store)) == rounds == len(shown(store))
    assert latest(store, "iris") in {f"v{number}" for number in range(rounds)}


def _recovered(store: Path) -> None:
    StagingArea(str(store)).open_session().close()
    sessions = Path(StagingArea(str(store)).path, "sessions")
    assert list(sessions.iterdir()) == []


def test_killed_at_every_step_of_an_import(store: Path) -> None:
    area = StagingArea(str(store))
    outcomes = []
    for _ in killed_at_every_step(area.open_session, lambda session: publish_files(session, "iris:v0", NEW)):
        if "bound" not in str(store):
            contents(store)  # `bentoml models list` works at any moment
        _recovered(store)
        found = contents(store)
        outcomes.append(bool(found))
        assert found in ({}, {"iris:v0": _NEW})
        assert latest(store, "iris") == ("v0" if found else None)
        assert shown(store) == list(found)
        if found:
            (store / "iris" / "latest").unlink()
            for path in sorted((store / "iris").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        if (store / "iris").exists():
            (store / "iris").rmdir()
    assert outcomes == sorted(outcomes), "nothing first, and from some step on the whole"
    assert outcomes.count(False) > 3
    assert outcomes.count(True) > 1


def test_killed_at_every_step_of_an_overwrite(store: Path, expect_log: ExpectLog) -> None:
    session = StagingArea(str(store)).open_session()
    publish_files(session, "iris:v0", OLD, _2024)
    publish_files(session, "iris:v1", OLD, _2024)
    session.close()
    assert latest(store, "iris") == "v1"
    if "bound" in str(store):
        expect_log("iris:v0 is back in the store")

    def work(session: Session) -> None:
        publish_files(session, "iris:v0", NEW, _2025, overwrite=True)

    outcomes = []
    for _ in killed_at_every_step(StagingArea(str(store)).open_session, work):
        if "bound" not in str(store):
            assert contents(store)["iris:v0"] in (_OLD, _NEW)
        _recovered(store)
        found = contents(store)
        assert found in ({"iris:v0": _OLD, "iris:v1": _OLD}, {"iris:v0": _NEW, "iris:v1": _OLD})
        outcomes.append(found["iris:v0"] == _NEW)
        assert latest(store, "iris") == ("v0" if outcomes[-1] else "v1")
        assert shown(store) == ["iris:v0", "iris:v1"]
        if outcomes[-1]:
            remove_model(store, "iris:v0")
            make_model(store, "iris:v0", OLD, creation_time=_2024, latest=False)
            (store / "iris" / "latest").write_text("v1")
    assert outcomes == sorted(outcomes), "the old one first, and from some step on the new one"
    assert outcomes.count(False) > 3
    assert outcomes.count(True) > 1


_OVERWRITING = """
import itertools, sys
from bentofs.store.staging.area import StagingArea
from tests.store.staged import publish_files
session = StagingArea(sys.argv[1]).open_session()
print("ready", flush=True)
for number in itertools.count():
    publish_files(session, "iris:v1", {name: b"%d" % number for name in "abcdefgh"}, overwrite=True)
"""


_RECOVERING = """
import sys
from bentofs.store.staging.area import StagingArea
StagingArea(sys.argv[1]).open_session().close()
"""


def test_killed_at_random_while_overwriting(store: Path) -> None:
    chance = random.Random(7)
    for _ in range(8):
        with other_process(_OVERWRITING, store) as process:
            said(process, "ready")
            time.sleep(chance.random() / 5)  # any moment of the overwriting
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        before = contents(store) if "bound" not in str(store) else None
        run(sys.executable, "-c", _RECOVERING, store, cwd=ROOT)  # it may or may not log that it put something back
        found = contents(store)
        assert found.keys() <= {"iris:v1"}
        for model in found.values():
            assert model.keys() == set("abcdefgh")
            assert len(set(model.values())) == 1, "files of one generation"
        assert before in (None, found)
        assert latest(store, "iris") == ("v1" if found else None)
    assert found, "something was published"
