"""Users of incoming/: the right to write, the owner of an upload, the owner of an imported model.

Run as root: only root can become other users and try their rights.
"""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import ROOT, Mounted, ended, home_of, make_model, run, unmount_lazily, wait_until
from tests.incoming import area_of, cp, imports, made, made_tar, same, send

pytestmark = pytest.mark.root

NOBODY, ANOTHER = 65_534, 12_345
ALLOWED = ["--allow-other", "--incoming-mode", "1777"]


def as_user(uid: int, *command: object) -> "subprocess.CompletedProcess[str]":
    """Run a tool as another user; it may fail."""
    who = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return subprocess.run(
        [*who, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )


def size_for(uid: int, path: Path) -> int | None:
    """Return a file's size as another user sees it, or None if that user sees no such file."""
    done = as_user(uid, "stat", "-c", "%s", path)
    return int(done.stdout) if done.returncode == 0 else None


@pytest.fixture
def mount(shared: Path, shared_store: Path) -> Iterator[Callable[..., Mounted]]:
    """Mount the shared store."""
    running: list[Mounted] = []

    def start(*options: str, umask: int | None = None) -> Mounted:
        prefix: list[str] = []
        if umask is not None:
            prefix = ["sh", "-c", f'umask {umask:03o}; exec "$@"', "sh"]
        mounted = Mounted(shared_store, shared / "base", options=options, prefix=prefix)
        mounted.path.mkdir(exist_ok=True)
        (shared / "base").chmod(0o755)
        running.append(mounted)
        mounted.start()
        return mounted

    yield start
    for mounted in running:
        if mounted.running:
            mounted.stop()


def readable(archive: Path) -> Path:
    for folder in archive.parents:
        if folder.stat().st_uid == os.geteuid() and str(folder).startswith("/tmp/bentofs-test-"):
            folder.chmod(0o755)
    archive.chmod(0o644)
    return archive


# The directory.


def test_read_only_has_no_incoming(mount: Callable[..., Mounted], shared_store: Path, shared: Path) -> None:
    mounted = mount("--read-only")
    assert sorted(os.listdir(mounted.path)) == ["README.txt", "by-format", "models"]
    assert "incoming/" not in (mounted.path / "README.txt").read_text()
    done = cp(made_tar(shared, "m:v1"), mounted.path / "incoming")
    assert "Read-only file system" in done.stderr
    done = cp(shared / "m-v1.tar", mounted.path / "incoming/")
    assert done.returncode == 1
    with pytest.raises(OSError, match="Read-only"):
        (mounted.path / "incoming").mkdir()
    assert not area_of(shared_store).exists()
    mounted.stop()
    mounted = mount()
    assert sorted(os.listdir(mounted.path)) == ["README.txt", "by-format", "incoming", "models"]
    assert "incoming/" in (mounted.path / "README.txt").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--incoming-mode", "1777"], "--allow-other"),
        (["--allow-other", "--incoming-mode", "rwx"], "rwx"),
        (["--allow-other", "--incoming-mode", "7777"], "7777"),
        (["--allow-other", "--incoming-mode", "0"], "0 is not the mode"),
    ],
)
def test_modes_that_are_refused(shared_store: Path, shared: Path, options: list[str], words: str) -> None:
    (shared / "mnt").mkdir()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bentofs.mount",
            "mount",
            shared / "mnt",
            "--store",
            shared_store,
            "--foreground",
            *options,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **home_of(shared / "base")},
    )
    assert done.returncode == 2
    assert words in done.stderr


def test_others_may_not_even_look_by_default(mount: Callable[..., Mounted], shared: Path) -> None:
    mounted = mount()
    archive = readable(made_tar(shared, "m:v1"))
    assert "Permission denied" in as_user(NOBODY, "ls", mounted.path).stderr
    assert "Permission denied" in as_user(NOBODY, "cp", "-t", mounted.path / "incoming", archive).stderr


def test_others_may_read_but_not_write_without_a_mode(
    mount: Callable[..., Mounted], shared_store: Path, shared: Path
) -> None:
    make_model(shared_store, "old:v1", {"w": b"old"})
    mounted = mount("--allow-other")
    archive = readable(made_tar(shared, "m:v1"))
    assert as_user(NOBODY, "cat", mounted.path / "models/old/v1/files/w").stdout == "old"
    look = (mounted.path / "incoming").stat()
    assert (stat.S_IMODE(look.st_mode), look.st_uid) == (0o755, 0)
    incoming = mounted.path / "incoming"
    for command in (
        ["cp", "-t", incoming, archive],
        ["mkdir", incoming / "folder"],
        ["touch", incoming / "file"],
    ):
        assert "Permission denied" in as_user(NOBODY, *command).stderr
    run("cp", archive, incoming)
    assert as_user(NOBODY, "touch", incoming / "m-v1.tar").returncode == 1
    as_user(NOBODY, "rm", "-f", incoming / "m-v1.tar")
    assert os.listdir(incoming) == []
    assert (incoming / "m-v1.tar").stat().st_size == archive.stat().st_size
    same(shared / "made/m/v1", shared_store / "m/v1")


@pytest.mark.parametrize("mode", ["1777", "777", "1733"])
def test_others_may_write_with_a_mode(
    mount: Callable[..., Mounted], shared_store: Path, shared: Path, mode: str
) -> None:
    mounted = mount("--allow-other", "--incoming-mode", mode)
    incoming = mounted.path / "incoming"
    assert stat.S_IMODE(incoming.stat().st_mode) == int(mode, 8) | 0o1000
    archive = readable(made_tar(shared, "m:v1", {"w": os.urandom(300_000), "d/e": b"e"}))
    done = as_user(NOBODY, "cp", "-p", archive, incoming)
    assert done.returncode == 0, done.stderr
    same(shared / "made/m/v1", shared_store / "m/v1")
    for path in [shared_store / "m", *(shared_store / "m").rglob("*")]:
        assert path.stat().st_uid == 0, f"{path} belongs to the uploader"
    assert imports(mounted)[-1]["uid"] == NOBODY
    if mode != "1733":
        assert as_user(NOBODY, "stat", "-c", "%u", incoming / "m-v1.tar").stdout == f"{NOBODY}\n"
        # A second copy finds the model unchanged, by any user.
        assert as_user(NOBODY, "cp", archive, incoming).returncode == 0
    run("cp", "-r", shared / "made", shared / "folder")
    run("chmod", "-R", "a+rX", shared / "folder")
    done = as_user(NOBODY, "cp", "-r", shared / "folder/m/v1", incoming / "folder")
    assert done.returncode == 0, done.stderr
    done = as_user(NOBODY, "sync", incoming / "folder")
    assert done.returncode == 0, done.stderr
    assert imports(mounted)[-1]["state"] == "unchanged"


def test_a_model_that_came_as_a_folder_of_another_user(
    mount: Callable[..., Mounted], shared_store: Path, shared: Path
) -> None:
    """The model belongs to the mount's owner, with the umask's modes, whatever the uploader gave it."""
    mounted = mount(*ALLOWED)
    folder = made(shared, "m:v1", {"w": b"w", "d/run": b"#!/bin/sh\n"}, executable=["d/run"])
    run("chmod", "-R", "a+rX", shared / "made")
    (folder / "w").chmod(0o666)
    (folder / "d").chmod(0o777)
    done = as_user(NOBODY, "cp", "-r", "--preserve=mode", folder, mounted.path / "incoming/f")
    assert done.returncode == 0, done.stderr
    done = as_user(NOBODY, "sync", mounted.path / "incoming/f")
    assert done.returncode == 0, done.stderr
    assert imports(mounted)[-1]["uid"] == NOBODY
    for path in (shared_store / "m").rglob("*"):
        look = path.stat()
        assert (look.st_uid, look.st_gid, look.st_mode & 0o022) == (0, 0, 0), path


def test_an_upload_belongs_to_its_uploader(mount: Callable[..., Mounted], shared: Path) -> None:
    mounted = mount(*ALLOWED)
    incoming = mounted.path / "incoming"
    archive = readable(made_tar(shared, "m:v1", {"w": b"w" * 50_000}))
    mounted.allow_log("half.tar was not imported")
    assert as_user(NOBODY, "dd", f"if={archive}", f"of={incoming}/half.tar", "bs=10000", "count=2").returncode == 1
    assert (incoming / "half.tar").stat().st_uid == NOBODY
    for command in (
        ["rm", "-f", incoming / "half.tar"],
        ["mv", incoming / "half.tar", incoming / "mine.tar"],
        ["truncate", "-s0", incoming / "half.tar"],
        ["cp", archive, incoming / "half.tar"],
        ["touch", incoming / "half.tar"],
        ["chmod", "777", incoming / "half.tar"],
    ):
        done = as_user(ANOTHER, *command)
        assert done.returncode != 0, command
        assert "Permission denied" in done.stderr or "not permitted" in done.stderr, done.stderr
    assert len((incoming / "half.tar").read_bytes()) == 20_000
    # The same holds after a crash.
    mounted.process.send_signal(signal.SIGKILL)
    mounted.process.wait(20)
    mounted.kill()
    mounted.start()
    assert (incoming / "half.tar").stat().st_uid == NOBODY
    assert as_user(ANOTHER, "rm", "-f", incoming / "half.tar").returncode == 1
    done = as_user(
        NOBODY, "dd", f"if={archive}", f"of={incoming}/half.tar", "bs=10000", "skip=2", "seek=2", "conv=notrunc"
    )
    assert done.returncode == 0, done.stderr
    assert imports(mounted)[-1]["uid"] == NOBODY
    # An imported name still answers its uploader: no other user can make rsync send it again.
    as_user(ANOTHER, "rm", "-f", incoming / "half.tar")
    assert size_for(NOBODY, incoming / "half.tar") == archive.stat().st_size
    assert as_user(NOBODY, "rm", incoming / "half.tar").returncode == 0
    assert size_for(NOBODY, incoming / "half.tar") is None


@pytest.mark.parametrize("second", [0, ANOTHER])
def test_a_name_that_one_user_imported_is_free_for_others(
    mount: Callable[..., Mounted], shared_store: Path, shared: Path, second: int
) -> None:
    mounted = mount(*ALLOWED)
    target = mounted.path / "incoming/model.tar"
    archive, other = readable(made_tar(shared, "m:v1")), readable(made_tar(shared, "m2:v1", {"w": b"longer" * 1000}))
    assert as_user(NOBODY, "cp", "-p", archive, target).returncode == 0
    # For one second, the kernel shows one user's attributes to all.
    wait_until(lambda: size_for(second, target) is None, 5, "the other user sees no such file")
    done = as_user(second, "cp", "-p", archive, target)
    assert done.returncode == 0, done.stderr
    assert [(receipt["uid"], receipt["state"]) for receipt in imports(mounted)] == [
        (NOBODY, "imported"),
        (second, "unchanged"),
    ]
    wait_until(lambda: size_for(NOBODY, target) == archive.stat().st_size, 5, "it answers the first user, too")
    wait_until(lambda: size_for(second, target) == archive.stat().st_size, 5, "and the second")
    # Changes by the second user do not affect the first user.
    assert as_user(second, "cp", other, target).returncode == 0
    assert (shared_store / "m2/v1/w").exists()
    wait_until(lambda: size_for(second, target) == other.stat().st_size, 5, "the second user sees the new size")
    wait_until(lambda: size_for(NOBODY, target) == archive.stat().st_size, 5, "the first user sees the old one")
    assert as_user(NOBODY, "touch", "-d", "2001-01-01", target).returncode == 0
    wait_until(lambda: size_for(second, target) == other.stat().st_size, 5, "the second user may look")
    assert as_user(second, "rm", target).returncode == 0
    wait_until(lambda: size_for(second, target) is None, 5, "it has gone for the second user")
    wait_until(lambda: size_for(NOBODY, target) == archive.stat().st_size, 5, "not for the first")
    assert as_user(NOBODY, "mv", target, target.with_name("renamed.tar")).returncode == 0
    assert size_for(NOBODY, target.with_name("renamed.tar")) == archive.stat().st_size


def test_what_another_user_sends_under_an_imported_name_is_refused_with_a_reason(
    mount: Callable[..., Mounted], shared: Path
) -> None:
    mounted = mount(*ALLOWED)
    target = mounted.path / "incoming/model.tar"
    archive = readable(made_tar(shared, "m:v1"))
    assert as_user(NOBODY, "cp", archive, target).returncode == 0
    wait_until(lambda: size_for(ANOTHER, target) is None, 5, "the other user sees no such file")
    (shared / "other").mkdir(mode=0o755)
    other = readable(made_tar(shared / "other", "m:v1", {"w": b"other content"}))
    mounted.expect_log("model.tar was not imported: m:v1 is in the store with other content", times=1)
    done = as_user(ANOTHER, "cp", other, target)
    assert "File exists" in done.stderr
    assert "other content" in as_user(ANOTHER, "cat", f"{target}.error").stdout
    assert imports(mounted)[-1]["uid"] == ANOTHER
    assert as_user(ANOTHER, "rm", target).returncode == 0
    assert os.listdir(target.parent) == []
    wait_until(lambda: size_for(NOBODY, target) == archive.stat().st_size, 5, "the first user's import still answers")


def test_a_new_folder_is_its_makers_whatever_was_there_before(mount: Callable[..., Mounted]) -> None:
    """The owner is right even if the disk reuses the inode number of another user's removed directory."""
    mounted = mount(*ALLOWED)
    incoming = mounted.path / "incoming"
    for number in range(5):
        gone, mine = f"gone{number}", incoming / f"mine{number}"
        done = as_user(NOBODY, "sh", "-c", f"cd {incoming} && mkdir {gone} other && mv -T other {gone}")
        assert done.returncode == 0, done.stderr
        mine.mkdir()
        assert mine.stat().st_uid == os.geteuid()


def test_the_owner_may_remove_what_others_left(mount: Callable[..., Mounted], shared: Path) -> None:
    mounted = mount(*ALLOWED)
    mounted.expect_log("junk was not imported")
    incoming = mounted.path / "incoming"
    (shared / "junk").write_bytes(b"junk" * 1000)
    readable(shared / "junk")
    done = as_user(NOBODY, "cp", shared / "junk", incoming)
    assert "Invalid argument" in done.stderr
    assert "not an archive" in as_user(NOBODY, "cat", incoming / "junk.error").stdout
    run("rm", incoming / "junk", "-f", incoming / "junk.error")
    assert os.listdir(incoming) == []


def test_the_uploader_may_remove_the_reason(mount: Callable[..., Mounted], shared: Path) -> None:
    mounted = mount(*ALLOWED)
    mounted.expect_log("junk was not imported")
    incoming = mounted.path / "incoming"
    (shared / "junk").write_bytes(b"junk" * 1000)
    readable(shared / "junk")
    as_user(NOBODY, "cp", shared / "junk", incoming)
    assert as_user(ANOTHER, "rm", "-f", incoming / "junk.error").returncode == 1
    done = as_user(NOBODY, "rm", "-f", incoming / "junk", incoming / "junk.error")
    assert done.returncode == 0, done.stderr
    assert os.listdir(incoming) == []


def test_another_users_upload_does_not_move_latest(
    mount: Callable[..., Mounted], shared_store: Path, shared: Path
) -> None:
    make_model(shared_store, "m:v1", {"w": b"1"}, creation_time="2026-01-01T00:00:00+00:00")
    mounted = mount(*ALLOWED)
    incoming = mounted.path / "incoming"
    for tag, year in (("m:v2", 2026), ("own:v1", 2025), ("own:v2", 2026)):
        archive = made_tar(shared, tag, creation_time=f"{year}-02-01T00:00:00+00:00")
        done = as_user(NOBODY, "cp", readable(archive), incoming)
        assert done.returncode == 0, done.stderr
    assert (shared_store / "m/latest").read_text() == "v1"
    wait_until(lambda: mounted.shows("m:v2"), 10, "the model is shown all the same")
    assert os.readlink(mounted.path / "models/m/latest") == "v1"
    assert (shared_store / "own/latest").read_text() in ("v1", "v2")
    # The owner's upload does.
    run("cp", made_tar(shared, "m:v3", creation_time="2026-03-01T00:00:00+00:00"), incoming)
    assert (shared_store / "m/latest").read_text() == "v3"


def test_checksums_of_another_user_refuse_nothing(mount: Callable[..., Mounted], shared: Path) -> None:
    mounted = mount(*ALLOWED)
    incoming = mounted.path / "incoming"
    archive = readable(made_tar(shared, "m:v1"))
    for note, user in (("m-v1.tar.sha256", NOBODY), ("SHA256SUMS", ANOTHER)):
        (shared / note).write_text(f"{'0' * 64}  m-v1.tar\n")
        assert as_user(user, "cp", readable(shared / note), incoming).returncode == 0
    run("cp", archive, incoming)
    # Checksums of the same user, and of the owner, count.
    (shared / "SHA256SUMS").write_text(f"{'0' * 64}  two.tar\n{'0' * 64}  three.tar\n")
    run("rm", incoming / "SHA256SUMS")
    run("cp", shared / "SHA256SUMS", incoming)
    mounted.expect_log("SHA-256", times=2)
    for user, name in ((NOBODY, "two.tar"), (0, "three.tar")):
        done = as_user(user, "cp", archive, incoming / name)
        assert "Bad message" in done.stderr


def test_another_users_upload_is_refused_where_a_tag_is_taken(
    mount: Callable[..., Mounted], shared_store: Path, shared: Path
) -> None:
    make_model(shared_store, "m:v1", {"w": b"1"})
    mounted = mount(*ALLOWED)
    mounted.expect_log("m-v1.tar was not imported", times=1)
    done = as_user(NOBODY, "cp", readable(made_tar(shared, "m:v1", {"w": b"2"})), mounted.path / "incoming")
    assert "File exists" in done.stderr
    assert (shared_store / "m/v1/w").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o027, 0o640, 0o750), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)]
)
@pytest.mark.parametrize("form", ["tar", "zip", "folder"])
def test_modes_are_the_umasks(
    mount: Callable[..., Mounted], shared_store: Path, shared: Path, form: str, umask: int, file: int, folder: int
) -> None:
    mounted = mount(umask=umask)
    model = made(
        shared, "m:v1", {"w": b"w", "d/e/run": b"#!/bin/sh\n", "empty/": b"", "odd": b"odd"}, executable=["d/e/run"]
    )
    (model / "odd").chmod(0o6666)
    (model / "d").chmod(0o2777)
    send(model, form, mounted, shared)
    modes = {
        str(path.relative_to(shared_store)): stat.S_IMODE(path.stat().st_mode)
        for path in [*(shared_store / "m").rglob("*"), shared_store / "m"]
    }
    run_mode = modes.pop("m/v1/d/e/run")
    assert run_mode in ((file | 0o111) & ~umask, file), oct(run_mode)
    if form != "folder":  # cp gives the drop box no modes to keep
        assert run_mode == 0o777 & ~umask
    for path, mode in modes.items():
        expected = folder if (shared_store / path).is_dir() else file
        assert mode == expected, f"{path}: {mode:o}"


@pytest.fixture
def fuse_for_everyone() -> Iterator[None]:
    """Open /dev/fuse to everyone, as Debian does. Some containers keep it for root."""
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    try:
        yield
    finally:
        os.chmod("/dev/fuse", mode)


@pytest.mark.usefixtures("fuse_for_everyone")
def test_what_an_ordinary_user_mounts(shared_store: Path, shared: Path) -> None:
    """Without root, the models and the staging area belong to the user. Do not use `Mounted`: it looks at a mount as
    root, and a mount without --allow-other is for its user alone."""
    base = shared / "base"
    environment = {**os.environ, **home_of(base)}
    mountpoint = base / "mnt"
    mountpoint.mkdir()
    run("chown", "-R", f"{NOBODY}:{NOBODY}", base, shared / "bentoml")
    archive = readable(made_tar(shared, "m:v1", {"w": os.urandom(100_000)}))
    who = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    daemon = [sys.executable, "-m", "bentofs.mount", "mount", mountpoint, "--store", shared_store, "--foreground"]
    with (
        (shared / "log").open("wb") as log,
        ended(subprocess.Popen([*who, *map(str, daemon)], cwd=ROOT, env=environment, stderr=log)) as process,
    ):

        def answers() -> bool:
            assert process.poll() is None, (shared / "log").read_text()
            return as_user(NOBODY, "cat", mountpoint / "README.txt").returncode == 0

        try:
            wait_until(answers, 20, "the mount answers")
            done = as_user(NOBODY, "cp", archive, mountpoint / "incoming")
            assert done.returncode == 0, done.stderr
            assert as_user(ANOTHER, "ls", mountpoint).returncode != 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            unmount_lazily(mountpoint)
    assert "WARNING" not in (shared / "log").read_text()
    same(shared / "made/m/v1", shared_store / "m/v1")
    area = area_of(shared_store)
    for path in [*(shared_store / "m").rglob("*"), area, *area.rglob("*")]:
        assert path.lstat().st_uid == NOBODY
    assert stat.S_IMODE(area.stat().st_mode) == 0o700
    assert stat.S_IMODE((area / "receipts.sqlite").stat().st_mode) & 0o077 == 0


@pytest.mark.usefixtures("fuse_for_everyone")
def test_an_upload_belongs_to_its_uploader_in_an_ordinary_users_mount_too(shared_store: Path, shared: Path) -> None:
    """A mount that cannot change owners on disk remembers them. A failed copy can be made again, or removed. Another
    user's checksums refuse nothing."""
    base = shared / "base"
    home_of(base)
    archive = readable(made_tar(shared, "m:v1", {"w": b"w" * 50_000}))
    run("chown", "-R", f"{NOBODY}:{NOBODY}", base, shared / "bentoml")
    # Give the one capability that mounting takes. This replaces user_allow_other in this machine's /etc/fuse.conf.
    may_mount = ["--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"]
    prefix = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", *may_mount]
    with Mounted(shared_store, base, options=ALLOWED, prefix=prefix) as mounted:
        incoming = mounted.path / "incoming"
        mounted.expect_log("half.tar was not imported", times=1)
        assert as_user(ANOTHER, "dd", f"if={archive}", f"of={incoming}/half.tar", "bs=10000", "count=2").returncode == 1
        assert as_user(ANOTHER, "sh", "-c", f"echo {'0' * 64}  m-v1.tar > {incoming}/SHA256SUMS").returncode == 0
        assert {path.stat().st_uid for path in incoming.iterdir()} == {ANOTHER}
        done = as_user(NOBODY, "cp", archive, incoming)
        assert done.returncode == 0, done.stderr
        for command in (["cp", archive, incoming / "half.tar"], ["rm", incoming / "SHA256SUMS"]):
            done = as_user(ANOTHER, *command)
            assert done.returncode == 0, done.stderr
        assert os.listdir(incoming) == []


def test_a_store_that_may_not_be_written_is_mounted_without_incoming(
    mount: Callable[..., Mounted], shared_store: Path
) -> None:
    make_model(shared_store, "m:v1", {"w": b"w"})
    run("mount", "--bind", shared_store, shared_store)
    try:
        run("mount", "-o", "remount,bind,ro", shared_store)
        mounted = mount()
        mounted.wait_for_log("may not be written by you: no incoming/")
        assert sorted(os.listdir(mounted.path)) == ["README.txt", "by-format", "models"]
        assert (mounted.path / "models/m/v1/files/w").read_bytes() == b"w"
        assert "incoming/" not in (mounted.path / "README.txt").read_text()
        mounted.stop()
    finally:
        run("umount", "-l", shared_store)
