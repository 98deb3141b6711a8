"""Targets of exports that are not plain new files, and the remains of killed exports beside a target."""

import itertools
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentofs.store.api import export_model
from bentofs.store.errors import BadLocationError, NoSpaceError, StoreUnwritableError
from bentofs.store.formats.pieces import Literal
from bentofs.store.transfer.endpoints.local import LocalEndpoint
from bentofs.store.transfer.endpoints.parts import new_part, remove_left_behind
from bentofs.store.transfer.endpoints.special import own_descriptor
from tests.harness import ROOT, ended, home_of, make_model
from tests.store.users import an_ordinary_user, folder_of_an_ordinary_user


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in home_of(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "home" / "bentoml" / "models", "demo:v1", {"w": b"w" * 5000})
    return tmp_path / "home"


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """The expected bytes of all exports here."""
    (tmp_path / "expected").mkdir()
    return Path(export_model("demo:v1", "expected/m.tar")).read_bytes()


def _ignore(_count: int) -> None: ...


def test_open_files_are_written_where_they_are(tmp_path: Path, archive: bytes) -> None:
    with (tmp_path / "f").open("w+b", buffering=0) as file:
        file.write(b"head")
        for path in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}"):
            assert own_descriptor(path) == file.fileno()
            assert export_model("demo:v1", path, "tar") == path
        (tmp_path / "link").symlink_to(f"/dev/fd/{file.fileno()}")
        export_model("demo:v1", "link", "tar")
        assert (tmp_path / "f").read_bytes() == b"head" + 3 * archive
        for refused in ({"output_format": "folder"}, {"sha256": True}):
            with pytest.raises(BadLocationError):
                export_model("demo:v1", path, **refused)
        # A file opened by another process is reached by its name.
        assert own_descriptor(f"/proc/{os.getppid()}/fd/1") is None
    with pytest.raises(StoreUnwritableError, match="is not open"):
        export_model("demo:v1", path, "tar")
    assert [own_descriptor(path) for path in ("/dev/stdout", "/dev/null", "f", "/dev/fd")] == [1, None, None, None]


def _in_a_namespace(script: str) -> None:
    """Run a shell script as root, with mounts that no other process sees."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-ec", script]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "BENTOFS": shlex.join([sys.executable, "-m", "bentofs.mount"]),
    }
    subprocess.run(command, env=environment, timeout=60, check=True)


def test_mounted_files_are_written_into(tmp_path: Path, archive: bytes) -> None:
    """A single file is mounted into a container: it cannot be replaced, and its directory may be read-only."""
    (tmp_path / "real").write_bytes(b"longer than the archive" * 10_000)
    for folder in ("one", "a b\n"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.tar").write_bytes(b"below")
    _in_a_namespace(
        """
        for folder in one 'a b
'; do
            mount --bind real "$folder/m.tar"
            $BENTOFS export demo:v1 "$folder/m.tar" --quiet
            cmp real expected/m.tar
            : > real
        done
        mount -o bind,ro one one
        mount --bind real one/m.tar
        $BENTOFS export demo:v1 one/m.tar --quiet
        """
    )
    assert (tmp_path / "real").read_bytes() == archive
    assert os.listdir(tmp_path / "one") == ["m.tar"]
    assert (tmp_path / "one" / "m.tar").read_bytes() == b"below"


def test_a_file_in_a_folder_that_may_not_be_written() -> None:
    with folder_of_an_ordinary_user() as folder, an_ordinary_user():
        target = folder / "m.tar"
        target.write_bytes(b"before")
        folder.chmod(0o500)
        LocalEndpoint().write(str(target), Literal(b"after"), _ignore)
        assert target.read_bytes() == b"after"
        # Half an archive is removed.
        with pytest.raises(NoSpaceError):
            LocalEndpoint().write(str(target), _Failing(), _ignore)
        assert target.read_bytes() == b""
        target.chmod(0o400)
        with pytest.raises(StoreUnwritableError, match="Permission denied"):
            LocalEndpoint().write(str(target), Literal(b"x"), _ignore)
        with pytest.raises(StoreUnwritableError, match="Permission denied"):
            LocalEndpoint().write(str(folder / "new"), Literal(b"x"), _ignore)


class _Failing:
    """Content whose second half cannot be read."""

    length = 2 << 20

    def read_into(self, _views: object, offset: int) -> None:
        if offset:
            raise NoSpaceError("no")


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for form in ("tar", "folder"):
        with pytest.raises(StoreUnwritableError, match=r"/file cannot be written: Not a directory$"):
            export_model("demo:v1", "file/m", form)


_EXPORT = """
import sys, time
from bentofs.store.formats.write.members import Member
from bentofs.store.transfer.endpoints.local import LocalEndpoint

class Slow:
    length = 2 << 20
    def read_into(self, views, offset):
        if offset:
            print("half", flush=True)
            time.sleep(60)  # until it is killed

def ignore(count): pass

if sys.argv[1] == "file":
    LocalEndpoint().write(sys.argv[2], Slow(), ignore)
else:
    members = [Member("sub", True, False, None), Member("sub/w", False, False, Slow())]
    LocalEndpoint().write_folder(sys.argv[2], members, ignore)
"""


@pytest.fixture(params=["file", "folder"])
def under_way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """An export to out/target by another process, half done."""
    (tmp_path / "out").mkdir()
    with ended(
        subprocess.Popen(
            [sys.executable, "-c", _EXPORT, request.param, str(tmp_path / "out" / "target")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        yield process


def test_what_a_killed_export_left_goes_with_the_next_one(
    under_way: "subprocess.Popen[bytes]", tmp_path: Path, archive: bytes
) -> None:
    def export_another() -> list[str]:
        export_model("demo:v1", "out/m.tar")
        assert (tmp_path / "out" / "m.tar").read_bytes() == archive
        return sorted(os.listdir("out"))

    part, name = export_another()
    assert (part[:8], part[-5:], name) == (".target.", ".part", "m.tar")
    under_way.send_signal(signal.SIGSTOP)  # it does nothing, but it is alive
    assert export_another() == [part, name]
    under_way.kill()
    under_way.wait(10)
    assert export_another() == ["m.tar"]


def test_only_what_is_certainly_left_is_removed(tmp_path: Path) -> None:
    """Another machine, or a release without locks, may have left it. It is removed if it has not changed for a day."""
    names = (".a.tar.0123456789ab.part", ".a.tar.01234567-0123456789ab.part")
    others = (".a.part", "a.tar.0123456789ab.part", ".a.tar.0123456789ab.part2", ".a.tar.0123456789zz.part")
    for name, hours in itertools.product((*names, *others), (1, 23, 25)):
        folder = tmp_path / str(hours)
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
        (folder / name.replace("a.tar", "folder") / "sub").mkdir(parents=True, exist_ok=True) if name in names else None
        for path in [*folder.rglob("*")][::-1]:
            then = os.stat(tmp_path).st_mtime - hours * 3600
            os.utime(path, (then, then))
    (tmp_path / "25" / names[0].replace("a.tar", "young")).mkdir()
    (tmp_path / "25" / names[1]).unlink()
    (tmp_path / "25" / names[1]).symlink_to(tmp_path / "1")
    for hours in (1, 23, 25):
        before = set(os.listdir(str(hours)))
        export_model("demo:v1", f"{hours}/m.tar")
        gone = before - set(os.listdir(str(hours)))
        old = {name.replace("a.tar", "folder") for name in names} | {names[0]}
        assert gone == (old if hours == 25 else set())


def test_archives_that_bentoml_opens_by_name(tmp_path: Path) -> None:
    """BentoML goes by the name. Its command has no option for the format."""
    command = [sys.executable, "-m", "bentofs.mount", "export", "demo:v1"]
    said = {}
    for name, options in (("a.tgz", []), ("b.tar.gz", []), ("c.pkg", ["--format", "zip"]), ("d", []), ("e.xz", [])):
        done = subprocess.run(
            [*command, name, *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        said[name] = done.stdout.partition("which BentoML opens only if it is renamed to end in ")[2].split()[:1]
    assert said == {"a.tgz": [".tar.gz"], "b.tar.gz": [], "c.pkg": [".zip"], "d": [], "e.xz": []}
    with tarfile.open(tmp_path / "a.tgz") as archive:
        assert "w" in archive.getnames()


def test_a_new_part_is_not_taken_for_a_left_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another export tidies the directory just when a part has been made and not been locked yet."""
    removed: list[str] = []
    mkdir = os.mkdir

    def make_and_tidy(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        if not removed:
            removed.append(path)
            remove_left_behind(str(tmp_path), os.stat(path).st_mtime)
            assert not os.path.exists(path)

    monkeypatch.setattr(os, "mkdir", make_and_tidy)
    with new_part(str(tmp_path / "model"), 0o777, is_folder=True) as (part, _descriptor):
        assert os.path.isdir(part)
        assert removed != [part]
