"""The staging area: found, refused, shared, and cleaned up after processes that died."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bentofs.store.clients.upload_notes import Unfinished
from bentofs.store.errors import StagingError
from bentofs.store.staging.area import RemoteStagingArea, StagingArea
from tests.harness import ROOT
from tests.store.staged import contents, in_a_namespace_of_its_own, other_process, publish_files, said
from tests.store.users import NOBODY, an_ordinary_user, folder_of_an_ordinary_user

ExpectLog = Callable[..., None]

# The process opens a session, runs the given code, reports it, and waits to be killed.
_SESSION = """
import os, sys
from bentofs.store.staging.area import StagingArea
session = StagingArea(sys.argv[1]).open_session()
exec(sys.argv[2])
print(session.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def area(store: Path) -> StagingArea:
    return StagingArea(str(store))


def _die(store: Path, doing: str) -> str:
    """Run a process that opens a session, does something, and is killed. Return the name of its session."""
    with other_process(_SESSION, store, doing) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert StagingArea(str(store)).is_alive(name)
        process.kill()
    assert not StagingArea(str(store)).is_alive(name)
    return name


def test_it_lies_beside_the_store_and_is_private(store: Path, tmp_path: Path, area: StagingArea) -> None:
    link = tmp_path / "link"
    link.symlink_to(store)
    before = os.umask(0)
    try:
        session = StagingArea(str(link)).open_session()
    finally:
        os.umask(before)
    assert Path(area.path) == store.parent / ".models.bentofs"
    for folder in (area.path, session.path, session.spool, session.staged):
        assert Path(folder).stat().st_mode & 0o7777 == 0o700
    assert list(store.iterdir()) == []
    session.close()
    assert list(Path(area.path, "sessions").iterdir()) == []


def test_two_stores_share_a_folder_that_was_named(tmp_path: Path) -> None:
    stores = [tmp_path / letter / "models" for letter in "ab"]
    for store in stores:
        store.mkdir(parents=True)
    areas = [StagingArea(str(store), str(tmp_path / "staging")) for store in stores]
    sessions = [area.open_session() for area in areas]
    assert len({area.path for area in areas}) == 2
    for area, session, store in zip(areas, sessions, stores, strict=True):
        assert Path(area.path).parent == tmp_path / "staging"
        publish_files(session, "iris:v1", {"w": b"w"})
        assert contents(store) == {"iris:v1": {"w": b"w"}}
        session.close()


def test_a_place_inside_the_store_is_refused(store: Path) -> None:
    for staging in (store, store / "staging"):
        with pytest.raises(StagingError, match=r"inside the store.*--staging"):
            StagingArea(str(store), str(staging)).open_session()
    assert list(store.iterdir()) == []


def test_a_place_on_another_file_system_is_refused(store: Path) -> None:
    script = """
import subprocess, sys
from bentofs.store.errors import StagingError
from bentofs.store.staging.area import StagingArea
store, other = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", other], check=True)
try:
    StagingArea(store, other).open_session()
    sys.exit("it was not refused")
except StagingError as error:
    assert "not on the file system of the store" in str(error) and "--staging" in str(error), error
# The same file system, through another mount: stat does not tell, rename refuses.
subprocess.run(["mount", "--bind", store + "/..", other], check=True)
try:
    StagingArea(store, other + "/staging").open_session()
    sys.exit("it was not refused")
except StagingError as error:
    assert "not on the file system of the store" in str(error), error
"""
    other = store.parent / "other"
    other.mkdir()
    in_a_namespace_of_its_own(script, store, other)


def test_the_state_folder_is_private_whoever_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state directory is private, because logs lie in it."""
    before = os.umask(0o022)
    try:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "one"))
        RemoteStagingArea("s3://bucket/models").open_session().close()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
        with Unfinished("bucket").noted("path", "upload"):
            pass
    finally:
        os.umask(before)
    for name in ("one", "other"):
        assert (tmp_path / name / "bentofs").stat().st_mode & 0o777 == 0o700


def test_a_store_that_is_a_mount_of_its_own_is_refused_with_advice(store: Path) -> None:
    script = """
import os, subprocess, sys
from bentofs.store.errors import StagingError
from bentofs.store.staging.area import StagingArea
store = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", store], check=True)
try:
    StagingArea(store).open_session()
    sys.exit("it was not refused")
except StagingError as error:
    assert "mount of its own" in str(error), error
os.mkdir(store + "/models")
StagingArea(store + "/models").open_session().close()
"""
    in_a_namespace_of_its_own(script, store)


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StagingError, match="no model store"):
        StagingArea(str(tmp_path / "nowhere")).open_session()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_may_not_be_written() -> None:
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        (folder / "models").mkdir()
        (folder / "models").chmod(0o500)
        with pytest.raises(StagingError, match=r"may not be written by you$"):
            StagingArea(str(folder / "models")).open_session()


def test_a_parent_that_may_not_be_written() -> None:
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        (folder / "models").mkdir()
        folder.chmod(0o500)
        with pytest.raises(StagingError, match=r"Permission denied.*--staging"):
            StagingArea(str(folder / "models")).open_session()


@pytest.mark.root
def test_an_area_of_another_user_is_not_used() -> None:
    """Another user may have made the area first, in a directory that anyone may write."""
    assert os.geteuid() == 0, "only root can make another user's folder: run the tests as root"
    with folder_of_an_ordinary_user() as folder:
        (folder / "models").mkdir()
        (folder / ".models.bentofs").mkdir()
        os.chown(folder / ".models.bentofs", NOBODY, NOBODY)
        with pytest.raises(StagingError, match=f"belongs to user {NOBODY}"):
            StagingArea(str(folder / "models")).open_session()
        (folder / ".models.bentofs").rmdir()
        (folder / "elsewhere").mkdir()
        (folder / ".models.bentofs").symlink_to("elsewhere")
        with pytest.raises(StagingError, match="Not a directory"):
            StagingArea(str(folder / "models")).open_session()
        assert list((folder / "elsewhere").iterdir()) == []


def test_what_a_dead_process_staged_is_removed_and_its_uploads_are_kept(store: Path, area: StagingArea) -> None:
    outside = store.parent / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"p")
    _die(
        store,
        "\n".join(
            (
                "os.makedirs(session.new_staged_path() + '/iris/v1')",
                f"os.symlink({str(outside)!r}, session.new_staged_path())",
                f"os.symlink({str(outside)!r}, session.staged + '/1/link')",
                "os.makedirs(session.spool + '/folder/empty')",
                "open(session.spool + '/folder/__init__.py', 'w')",
                "open(session.spool + '/iris-v1.tar.gz', 'w').write('half')",
                "open(session.spool + '/.iris-v1.zip.Ab3dEf', 'w').write('rsync')",
                "open(session.spool + '/empty', 'w')",
                "os.mkdir(session.spool + '/empty folder')",
                f"os.symlink({str(outside / 'precious')!r}, session.spool + '/link')",
            )
        ),
    )
    session = area.open_session()
    spool = Path(session.spool)
    assert sorted(os.listdir(spool)) == [".iris-v1.zip.Ab3dEf", "folder", "iris-v1.tar.gz"]
    assert sorted(os.listdir(spool / "folder")) == ["__init__.py", "empty"], "a folder stays as it was copied"
    assert (spool / "iris-v1.tar.gz").read_text() == "half"
    assert os.listdir(Path(area.path, "sessions")) == [session.name]
    assert (outside / "precious").read_bytes() == b"p"
    session.close()
    assert os.listdir(Path(area.path, "sessions")) == [session.name], "uploads are kept"
    again = area.open_session()
    assert sorted(os.listdir(again.spool)) == [".iris-v1.zip.Ab3dEf", "folder", "iris-v1.tar.gz"]
    again.close()


def test_uploads_of_the_same_name_get_a_number(store: Path, area: StagingArea) -> None:
    texts = ["one", "two", "three"]
    names = ["iris-v1.0.tar.gz", "plain", ".part.Ab3dEf"]
    with contextlib.ExitStack() as living:
        for text in texts:
            doing = f"for name in {names}: open(f'{{session.spool}}/{{name}}', 'w').write('{text}')"
            process = living.enter_context(other_process(_SESSION, store, doing))
            assert process.stdout is not None
            process.stdout.readline()
    session = area.open_session()
    spool = Path(session.spool)
    assert sorted(os.listdir(spool)) == sorted(
        f"{stem}{number}{rest}"
        for stem, rest in (("iris-v1", ".0.tar.gz"), ("plain", ""), (".part", ".Ab3dEf"))
        for number in ("", "-2", "-3")
    )
    for pattern in ("iris*", "plain*", ".part*"):
        assert sorted(path.read_text() for path in spool.glob(pattern)) == sorted(texts)
    session.close()


def test_a_folder_whose_import_was_cut_short_is_an_upload_again(store: Path, area: StagingArea) -> None:
    _die(
        store,
        """
place = session.new_importing_folder(1)
os.mkdir(f"{place}/iris")
open(f"{place}/iris/model.yaml", "w").write("x")
""",
    )
    session = area.open_session()
    assert os.listdir(session.spool) == ["iris"]
    assert os.listdir(Path(session.spool, "iris")) == ["model.yaml"]
    session.close()


def test_a_folder_below_others_is_put_back_there(store: Path, area: StagingArea) -> None:
    """The directory returns beside the remaining content of its parent directories. If its name has been taken since,
    it gets a number."""
    _die(
        store,
        """
for path in ("sub/deep/iris", "alone/iris", "taken"):
    place = session.new_importing_folder(1)
    os.makedirs(f"{place}/{path}")
    open(f"{place}/{path}/model.yaml", "w").write("x")
os.makedirs(f"{session.spool}/sub/deep")
open(f"{session.spool}/sub/deep/other", "w").write("x")
os.mkdir(f"{session.spool}/taken")
open(f"{session.spool}/taken/w", "w").write("x")
""",
    )
    session = area.open_session()
    found = sorted(str(path.relative_to(session.spool)) for path in Path(session.spool).rglob("*") if path.is_file())
    assert found == [
        "alone/iris/model.yaml",
        "sub/deep/iris/model.yaml",
        "sub/deep/other",
        "taken-2/model.yaml",
        "taken/w",
    ]
    session.close()


def test_a_living_session_is_left_alone(store: Path, area: StagingArea) -> None:
    doing = "open(session.spool + '/up', 'w').write('x'); os.mkdir(session.new_staged_path())"
    with other_process(_SESSION, store, doing) as process:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGSTOP)
        session = area.open_session()
        assert os.listdir(session.spool) == []
        assert os.listdir(Path(area.path, "sessions", name, "staged")) == ["1"]
        assert area.is_alive(name)
        assert area.is_alive(session.name)
        session.close()
        assert not area.is_alive(session.name)
    assert not area.is_alive(name)
    assert not area.is_alive("never-was")


@pytest.mark.parametrize("left", ["folder", "lock", "file"])
def test_a_session_that_was_only_begun(area: StagingArea, left: str) -> None:
    area.open_session().close()
    begun = Path(area.path, "sessions", "123-abc")
    if left == "file":
        begun.write_text("")
    else:
        begun.mkdir()
    if left == "lock":
        (begun / "lock").write_text("")
    session = area.open_session()
    assert begun.exists() == (left == "file")
    session.close()


def test_what_cannot_be_cleaned_up_is_told_and_hinders_nobody(expect_log: ExpectLog) -> None:
    expect_log("could not be (cleaned up|removed)")
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        (folder / "models").mkdir()
        area = StagingArea(str(folder / "models"))
        area.open_session().close()
        spool = Path(area.path, "sessions", "dead", "spool")
        spool.mkdir(parents=True)
        (spool / "upload").write_text("bytes")
        spool.chmod(0o500)
        area.open_session().close()
        assert (spool / "upload").read_text() == "bytes"
        spool.chmod(0o700)
        session = area.open_session()
        assert Path(session.spool, "upload").read_text() == "bytes"
        session.close()


_BUSY = """
import os, random, signal, sys
from bentofs.store.staging.area import StagingArea
random.seed(int(sys.argv[2]))
area = StagingArea(sys.argv[1])
for number in range(12):
    session = area.open_session()
    os.mkdir(session.new_staged_path())
    with open(f"{session.spool}/{sys.argv[2]}.{number}", "w") as file:
        file.write("upload")
    if random.random() < 0.5:
        session.close()
    if number == 11:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_many_processes_open_close_and_die_at_once(store: Path, area: StagingArea) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", _BUSY, str(store), str(number)], cwd=ROOT, stderr=subprocess.PIPE)
        for number in range(5)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert (worker.returncode, errors) == (-signal.SIGKILL, b"")
    session = area.open_session()
    assert os.listdir(Path(area.path, "sessions")) == [session.name]
    assert sorted(os.listdir(session.spool)) == sorted(f"{w}.{n}" for w in range(5) for n in range(12))
    assert os.listdir(session.staged) == []
    session.close()


def test_one_lock_at_a_time(store: Path, area: StagingArea) -> None:
    area.open_session().close()
    inside: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            with area.locked("something"):
                inside.append(number)
                time.sleep(random.random() / 500)  # let another thread come in, if it can
                assert inside == [number]
                inside.clear()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert inside == []
    holding = """
import sys
from bentofs.store.staging.area import StagingArea
with StagingArea(sys.argv[1]).locked("something"):
    print("held", flush=True)
    sys.stdin.readline()
"""
    with other_process(holding, store) as process:
        said(process, "held")
        waiting = threading.Thread(target=work, args=(9,))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        process.kill()
        waiting.join(30)
        assert not waiting.is_alive()


def test_a_full_disk(tmp_path: Path) -> None:
    script = """
import subprocess, sys
from pathlib import Path
from bentofs.store.errors import NoSpaceError
from bentofs.store.staging.area import StagingArea
base = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=8", "tmpfs", base], check=True)
(base / "bentoml" / "models").mkdir(parents=True)
for _ in range(2):  # while the area is made, and while a session is
    try:
        StagingArea(str(base / "bentoml" / "models")).open_session()
    except NoSpaceError as error:
        assert "no space is left" in str(error)
    else:
        raise AssertionError("there was room")
"""
    in_a_namespace_of_its_own(script, tmp_path)
