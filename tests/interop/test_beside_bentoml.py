"""bentofs beside BentoML: a finished model is shown soon, an unfinished one never, and rubbish harms nothing."""

import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Mounted, ended, make_model, run, wait_until
from tests.interop.conftest import Judge
from tests.waiting import SEEN_WITHIN

QUIET_FOR = 60.0  # BentoML before 1.4.20 leaves no mark on a finished model that is not the latest
SLOW_SAVE_FILES = 21  # of `judge.py slow-save`: model.yaml and 20 others

MountStore = Callable[..., Mounted]


@pytest.fixture
def mount(store: Path, mounted: MountStore) -> Mounted:
    return mounted(store)


def listed(mount: Mounted, tag: str) -> bool:
    """Tell whether any view shows the model. All are asked each time: they have different caches."""
    name, version = tag.split(":")
    paths = [
        mount.path / "models" / name / version,
        mount.archive(tag, ".bentomodel"),
        mount.path / "by-format" / "zip" / name / f"{name}-{version}.zip",
        mount.path / "by-format" / "folder" / name / version,
    ]
    return any([mount.shows(tag), *map(os.path.lexists, paths)])


def fully_listed(mount: Mounted, tag: str) -> bool:
    name, version = tag.split(":")
    return (
        mount.shows(tag)
        and version in os.listdir(mount.path / "by-format" / "folder" / name)
        and f"{name}-{version}.zip" in os.listdir(mount.path / "by-format" / "zip" / name)
        and mount.archive(tag, ".bentomodel").exists()
    )


def check_appears(mount: Mounted, tag: str, within: float = SEEN_WITHIN) -> None:
    def appears() -> bool:
        try:
            return fully_listed(mount, tag)
        except FileNotFoundError:
            return False

    wait_until(appears, within, f"{tag} is shown")


def test_appears_and_disappears(mount: Mounted, judge: Judge, tmp_path: Path) -> None:
    # Ask once before, so that the kernel's cached absence of the names must expire in time too.
    assert not listed(mount, "fresh:v1")
    judge.run(tmp_path, "quick-save", "fresh:v1")
    check_appears(mount, "fresh:v1")
    assert os.readlink(mount.path / "models" / "fresh" / "latest") == "v1"
    assert "model.yaml" in run("tar", "-tf", mount.archive("fresh:v1", ".tar")).stdout

    judge.run(tmp_path, "quick-save", "fresh:v2")
    check_appears(mount, "fresh:v2")
    wait_until(lambda: os.readlink(mount.path / "models" / "fresh" / "latest") == "v2", SEEN_WITHIN, "latest is v2")

    judge.run(tmp_path, "delete", "fresh:v2")
    wait_until(lambda: not listed(mount, "fresh:v2"), SEEN_WITHIN, "fresh:v2 is gone")
    wait_until(lambda: os.readlink(mount.path / "models" / "fresh" / "latest") == "v1", SEEN_WITHIN, "latest is v1")
    judge.run(tmp_path, "delete", "fresh:v1")
    wait_until(lambda: not listed(mount, "fresh:v1"), SEEN_WITHIN, "fresh:v1 is gone")
    wait_until(lambda: "fresh" not in os.listdir(mount.path / "models"), SEEN_WITHIN, "the name is gone")


def test_appears_after_command_line_import(mount: Mounted, judge: Judge, tmp_path: Path) -> None:
    archive = bentomodel_of("imported:v1", tmp_path)
    assert not listed(mount, "imported:v1")
    judge.cli(tmp_path, "models", "import", str(archive))
    check_appears(mount, "imported:v1")


def test_older_model_appears_after_import(mount: Mounted, store: Path, tmp_path: Path) -> None:
    """A model that 1.4 has finished is shown at any age, since 1.4 marks it. (For 1.2 see what_takes_a_minute.)"""
    make_model(store, "aged:v2", creation_time="2026-06-01T00:00:00+00:00")
    archive = bentomodel_of("aged:v1", tmp_path)
    Judge("1.4").run(tmp_path, "import", str(archive))
    check_appears(mount, "aged:v1")
    assert os.readlink(mount.path / "models" / "aged" / "latest") == "v2"


def bentomodel_of(tag: str, tmp_path: Path) -> Path:
    """Make an archive to import, without bentofs."""
    folder = make_model(tmp_path / "elsewhere", tag, {"weights.bin": b"\1" * 100_000})
    archive = tmp_path / f"{tag.replace(':', '-')}.bentomodel"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(folder, arcname=".")
    return archive


def _files_below(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def stopped_half_way(judge: Judge, base: Path, store: Path, tag: str) -> "subprocess.Popen[bytes]":
    """Stop a save when model.yaml and some, but not all, of the other files are in the store.

    A file must have come after model.yaml. Until then a killed save looks like a finished one.
    """
    folder = store.joinpath(*tag.split(":"))
    process = judge.start(base, "slow-save", tag)
    try:
        wait_until((folder / "model.yaml").exists, 60, "BentoML has written model.yaml", interval=0.005)
        before = _files_below(folder)
        wait_until(lambda: _files_below(folder) > before, 60, "BentoML has begun the next file", interval=0.005)
        process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{process.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(") ")[2].startswith("T"), 10, "the save is stopped")
        assert _files_below(folder) < SLOW_SAVE_FILES, "the save was over before it could be stopped"
    except BaseException:
        process.kill()
        process.wait(10)
        raise
    return process


def test_unfinished_save_is_not_shown(mount: Mounted, store: Path, judge: Judge, tmp_path: Path) -> None:
    mount.allow_log("slow:v1 is not shown")  # logged or not, depending on the exact time of the last byte
    with ended(stopped_half_way(judge, tmp_path, store, "slow:v1")) as process:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            assert not listed(mount, "slow:v1"), "shown while it was being saved"
            time.sleep(0.2)  # between two looks: it must not be shown
        process.send_signal(signal.SIGCONT)
        while process.poll() is None:
            complete = _files_below(store / "slow" / "v1") == SLOW_SAVE_FILES
            assert complete or not listed(mount, "slow:v1"), "shown while it was being saved"
            time.sleep(0.05)  # between two looks
        assert process.wait(60) == 0
    check_appears(mount, "slow:v1")
    shown = [path for path in (mount.path / "models" / "slow" / "v1" / "files").rglob("*") if path.is_file()]
    assert len(shown) == SLOW_SAVE_FILES


def test_what_takes_a_minute(mount: Mounted, store: Path, tmp_path: Path) -> None:
    """A save killed under 1.4 is never shown. An older model that 1.2.20 imported is shown after a minute.

    Both are in one test, since both have to wait.
    """
    mount.expect_log("killed:v1", times=1)
    with ended(stopped_half_way(Judge("1.4"), tmp_path, store, "killed:v1")) as process:
        process.kill()
        process.wait(10)
    killed = time.monotonic()

    make_model(store, "aged:v2", creation_time="2026-06-01T00:00:00+00:00")
    Judge("1.2").run(tmp_path, "import", str(bentomodel_of("aged:v1", tmp_path)))
    imported = time.monotonic()
    assert (store / "aged" / "latest").read_text() == "v2", "else the model would be shown at once"

    shown_after = None
    while time.monotonic() < max(killed, imported) + QUIET_FOR + SEEN_WITHIN + 3:
        assert not listed(mount, "killed:v1"), f"shown {time.monotonic() - killed:.1f} s after its save was killed"
        if shown_after is None and mount.shows("aged:v1"):
            shown_after = time.monotonic() - imported
        time.sleep(0.25)  # between two looks
    assert shown_after is not None
    assert shown_after < QUIET_FOR + SEEN_WITHIN


def unreadable_folder(store: Path, tag: str) -> list[str]:
    """Make a version folder that the daemon may not read. Return the command prefix under which this holds.

    For root: another user's folder with mode 0700, and a daemon that runs as root without the two capabilities that let
    root into it. This needs no second user who could read this source tree and open /dev/fuse. For other users: a
    folder of mode 0.
    """
    folder = make_model(store, tag, creation_time="2025-01-01T00:00:00+00:00")  # not the latest
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        folder.chmod(0o700)
        return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    folder.chmod(0)
    return []


def test_rubbish_is_left_out(mounted: MountStore, store: Path) -> None:
    make_model(store, "good:v1", {"weights.bin": b"\1" * 1000})
    make_model(store, "good:v3", {"weights.bin": b"\3" * 1000})
    rubbish: dict[str, bytes] = {
        "broken-yaml/v1/model.yaml": b"name: [broken",
        "no-mapping/v1/model.yaml": b"just a sentence\n",
        "binary/v1/model.yaml": b"\x00\xff\xfe" * 100,
        "stray-file.txt": b"a note",
        "Stray Folder/inside.txt": b"not a tag",
        "good/stray-note.txt": b"a note beside versions",
        "good/Not A Version/model.yaml": b"name: good\n",
        "good/no-model-yaml/weights.bin": b"\2",
    }
    for path, content in rubbish.items():
        file = store / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        # Set the times of a finished save, so that the daemon does not wait for more files.
        os.utime(file.parent, ns=(1, 1))
    (store / "good" / "model-yaml-is-a-folder" / "model.yaml").mkdir(parents=True)
    prefix = unreadable_folder(store, "good:v2")

    mount = mounted(store, prefix=prefix)
    named = [
        *("broken-yaml", "no-mapping", "binary", "stray-file.txt", "Stray Folder", "stray-note.txt"),
        *("Not A Version", "good[:/]no-model-yaml", "good[:/]model-yaml-is-a-folder", "good[:/]v2"),
    ]
    for name in named:
        mount.expect_log(name, times=1)

    def all_named() -> bool:
        """Look at everything, like a user of the mount. A daemon need not search for rubbish unasked."""
        run("ls", "-R", mount.path / "models")
        return all(re.search(name, mount.log()) for name in named)

    wait_until(all_named, 20, "every entry left out is named in the log", interval=0.5)

    assert os.listdir(mount.path / "models") == ["good"]
    versions = [name for name in os.listdir(mount.path / "models" / "good") if not name.startswith("latest")]
    assert sorted(versions) == ["v1", "v3"]
    assert os.readlink(mount.path / "models" / "good" / "latest") == "v3"
    for tag in ("good:v1", "good:v3"):
        for suffix in (".bentomodel", ".tar", ".tar.gz"):
            assert "weights.bin" in run("tar", "-tf", mount.archive(tag, suffix)).stdout
        run("unzip", "-t", mount.archive(tag, ".zip"))
    assert os.listdir(mount.path / "by-format" / "folder") == ["good"]

    # A model that appears later is found all the same.
    make_model(store, "good:v4")
    check_appears(mount, "good:v4")


def test_rubbish_that_comes_later_is_named(mount: Mounted, store: Path) -> None:
    make_model(store, "good:v1")
    check_appears(mount, "good:v1")
    mount.expect_log("late-file", times=1)
    mount.expect_log("late-broken", times=1)
    (store / "late-file").write_bytes(b"")
    broken = make_model(store, "late-broken:v1")
    (broken / "model.yaml").write_bytes(b"{")
    os.utime(broken, ns=(1, 1))
    end = time.monotonic() + SEEN_WITHIN
    while time.monotonic() < end:
        run("ls", "-R", mount.path / "models")
        time.sleep(0.2)  # between two looks
    assert os.listdir(mount.path / "models") == ["good"]
    mount.wait_for_log("late-file")
    mount.wait_for_log("late-broken")
