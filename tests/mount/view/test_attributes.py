"""The `stat` attributes of everything in a mount, so that `du`, `find` and `ls -li` make sense."""

import os
import stat
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.harness import Mounted, make_model, run, wait_until
from tests.waiting import wait_until_settled

CREATED = "2026-01-02T03:04:05.678901+00:00"
CREATED_SECONDS = int(datetime.fromisoformat(CREATED).timestamp())


@pytest.fixture
def mount(store: Path, mounted: Callable[..., Mounted]) -> Mounted:
    make_model(store, "iris:v1", {"model.pkl": b"x" * 1000}, creation_time="2026-01-01T00:00:00+00:00")
    make_model(
        store,
        "iris:v2",
        {"model.pkl": b"y" * 3000, "nested/deep/w.bin": b"z", "run.sh": b"#!/bin/sh\n", "empty/": b""},
        creation_time=CREATED,
        executable=["run.sh"],
    )
    make_model(store, "other:v1.zip", {})
    return mounted(store)


ARCHIVES = ("bentomodel", "tar", "tar.gz", "zip")

# Path: type and mode, links. All other fields are checked for all paths alike.
GOLDEN = {
    "": ("drwxr-xr-x", 5),
    "incoming": ("drwxr-xr-x", 2),
    "README.txt": ("-rw-r--r--", 1),
    "models": ("drwxr-xr-x", 4),
    "models/iris": ("drwxr-xr-x", 4),
    "models/iris/latest": ("lrwxrwxrwx", 1),
    **{f"models/iris/latest.{suffix}": ("lrwxrwxrwx", 1) for suffix in ARCHIVES},
    "models/iris/v1": ("drwxr-xr-x", 3),
    "models/iris/v2": ("drwxr-xr-x", 3),
    "models/iris/v2/SHA256SUMS": ("-rw-r--r--", 1),
    **{f"models/iris/v2/iris-v2.{suffix}": ("-rw-r--r--", 1) for suffix in ARCHIVES},
    **{f"models/iris/v2/iris-v2.{suffix}.sha256": ("-rw-r--r--", 1) for suffix in ARCHIVES},
    "models/iris/v2/files": ("drwxr-xr-x", 4),
    "models/iris/v2/files/empty": ("drwxr-xr-x", 2),
    "models/iris/v2/files/model.pkl": ("-rw-r--r--", 1),
    "models/iris/v2/files/model.yaml": ("-rw-r--r--", 1),
    "models/iris/v2/files/nested": ("drwxr-xr-x", 3),
    "models/iris/v2/files/nested/deep": ("drwxr-xr-x", 2),
    "models/iris/v2/files/nested/deep/w.bin": ("-rw-r--r--", 1),
    "models/iris/v2/files/run.sh": ("-rwxr-xr-x", 1),
    "models/other/v1.zip/other-v1.zip.tar": ("-rw-r--r--", 1),
    "by-format": ("drwxr-xr-x", 7),
    "by-format/tar.gz": ("drwxr-xr-x", 4),
    "by-format/tar.gz/iris": ("drwxr-xr-x", 2),
    "by-format/tar.gz/iris/iris-v1.tar.gz": ("-rw-r--r--", 1),
    "by-format/folder": ("drwxr-xr-x", 4),
    "by-format/folder/iris": ("drwxr-xr-x", 4),
    "by-format/folder/iris/latest": ("-rw-r--r--", 1),
    "by-format/folder/iris/v2/nested/deep/w.bin": ("-rw-r--r--", 1),
}


def test_golden_modes_and_links(mount: Mounted) -> None:
    found = {}
    for path in GOLDEN:
        look = (mount.path / path).lstat()
        found[path] = (stat.filemode(look.st_mode), look.st_nlink)
    assert found == GOLDEN


def test_every_node(mount: Mounted) -> None:
    """Walk the whole mount: listings agree with `lstat`, and each inode number is right."""
    inodes: dict[int, str] = {}
    seen = 0
    for folder, folders, files in os.walk(mount.path):
        with os.scandir(folder) as entries:
            listed = {entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False)) for entry in entries}
        assert os.lstat(folder).st_nlink == 2 + sum(is_folder for _, is_folder in listed.values())
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            look = os.lstat(path)
            seen += 1
            assert listed[name] == (look.st_ino, stat.S_ISDIR(look.st_mode))
            assert inodes.setdefault(look.st_ino, path) == path
            assert (look.st_uid, look.st_gid) == (os.geteuid(), os.getegid())
            if stat.S_ISREG(look.st_mode):
                assert look.st_blocks == -(-look.st_size // 512)
                assert Path(path).read_bytes().__len__() == look.st_size
            elif stat.S_ISLNK(look.st_mode):
                assert look.st_size == len(os.readlink(path))
                assert os.path.exists(path)
    assert seen > 80
    assert mount.path.lstat().st_ino == 1


def test_a_folder_lists_itself_and_the_one_above(mount: Mounted) -> None:
    """A directory lists . and .. under their inode numbers. The C library hides entries without one."""
    (mount.path / "incoming/some/sub").mkdir(parents=True)
    for path in ("models", "models/iris/v2/files/nested/deep", "by-format/zip", "incoming", "incoming/some/sub"):
        folder = mount.path / path
        listed = [line.split() for line in run("ls", "-1fi", folder).stdout.splitlines()]
        numbers = {name: int(number) for number, name in listed}
        assert numbers["."] == folder.stat().st_ino, path
        assert numbers[".."] == folder.parent.stat().st_ino, path


def test_times(mount: Mounted, store: Path) -> None:
    version = mount.path / "models/iris/v2"
    for suffix in ARCHIVES:
        look = (version / f"iris-v2.{suffix}").stat()
        assert look.st_mtime_ns == CREATED_SECONDS * 10**9
    source = store / "iris/v2/model.pkl"
    assert (version / "files/model.pkl").stat().st_mtime_ns == source.stat().st_mtime_ns
    newest = max(path.lstat().st_ctime_ns for path in [store / "iris/v2", *(store / "iris/v2").rglob("*")])
    assert (version / "iris-v2.tar").stat().st_ctime_ns == newest


def test_du_find_and_ls(mount: Mounted) -> None:
    sizes = [path.lstat().st_size for path in (mount.path / "models/iris/v2").iterdir() if path.is_file()]
    files = sum(path.lstat().st_size for path in (mount.path / "models/iris/v2/files").rglob("*") if path.is_file())
    counted = run("du", "-s", "--apparent-size", "--block-size=1", mount.path / "models/iris/v2").stdout.split()[0]
    assert int(counted) == sum(sizes) + files
    blocks = int(run("du", "-s", "--block-size=512", mount.path / "models/iris/v2").stdout.split()[0])
    assert blocks * 512 >= sum(sizes) + files
    found = run("find", mount.path / "models", "-name", "*.bin").stdout.split()
    assert found == [f"{mount.path}/models/iris/v2/files/nested/deep/w.bin"]
    numbers = run("ls", "-1i", mount.path / "models/iris/v2").stdout.splitlines()
    assert len({line.split()[0] for line in numbers}) == len(numbers) == 10


def test_statfs_is_the_stores(mount: Mounted, store: Path) -> None:
    shown, real = os.statvfs(mount.path), os.statvfs(store)
    assert (shown.f_bsize, shown.f_frsize, shown.f_blocks) == (real.f_bsize, real.f_frsize, real.f_blocks)
    assert abs(shown.f_bavail - real.f_bavail) * real.f_frsize < 1 << 30  # other programs write meanwhile
    assert shown.f_files == real.f_files
    assert shown.f_namemax == real.f_namemax


def test_names_that_are_legal_tags_but_look_like_something_else(store: Path, mounted: Callable[..., Mounted]) -> None:
    for tag in ("m.tar.gz:v1.zip", "a-b:c", "a:b-c", "x:latest", "x:other", "y:latest.zip"):
        make_model(store, tag, {"w": tag.encode()}, latest=False)
    mount = mounted(store)
    assert (mount.path / "models/m.tar.gz/v1.zip/m.tar.gz-v1.zip.zip").is_file()
    assert (mount.path / "by-format/tar/a-b/a-b-c.tar").read_bytes() != (
        mount.path / "by-format/tar/a/a-b-c.tar"
    ).read_bytes()
    assert sorted(os.listdir(mount.path / "models/x")) == ["latest", "other"]
    assert (mount.path / "models/x/latest").lstat().st_nlink == 3  # the version, not a link
    assert sorted(os.listdir(mount.path / "by-format/folder/x")) == ["latest", "other"]
    assert (mount.path / "models/y/latest.zip").is_dir()
    assert os.readlink(mount.path / "models/y/latest") == "latest.zip"
    assert os.readlink(mount.path / "models/y/latest.tar") == "latest.zip/y-latest.zip.tar"


def test_the_kernel_reads_ahead(mount: Mounted) -> None:
    """The kernel's read-ahead is set where it can be: as root only. An ordinary user's mount (`incoming/test_users.py`)
    does without."""
    device = os.stat(mount.path).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    # The daemon sets it once the mount answers, before it reports that it is ready.
    if os.geteuid() == 0:
        wait_until(lambda: setting.read_text() == "1024\n", 10, "the kernel is told")
    else:
        mount.wait_for_log("is mounted at")
        assert setting.read_text() != "1024\n"


@pytest.mark.parametrize(("first", "second"), [(".tar.gz", ".zip"), (".zip", ".tar.gz")])
def test_small_files_are_read_once_for_the_sizes_of_both_formats(
    store: Path, mounted: Callable[..., Mounted], first: str, second: str
) -> None:
    make_model(store, "small:v1", {f"{number}.json": b'{"number": 42}' * 2000 for number in range(100)})
    wait_until_settled(store)  # so that the measurement is kept
    mount = mounted(store)

    def read_by(suffix: str) -> int:
        io = Path(f"/proc/{mount.pid}/io")
        before = int(io.read_text().split()[1])
        assert mount.archive("small:v1", suffix).stat().st_size < 100_000
        return int(io.read_text().split()[1]) - before

    assert 2_800_000 <= read_by(first) < 3_500_000
    assert read_by(second) < 500_000
