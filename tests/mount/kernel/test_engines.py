"""Both engines serve the same mount: programs see no difference."""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import ROOT, Mounted, make_model, run
from tests.incoming import made_tar

ENGINES = ["kernel", "libfuse2"]
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16  # fallocate(2)


@pytest.fixture(params=ENGINES)
def mount(request: pytest.FixtureRequest, store: Path, mounted: Callable[..., Mounted]) -> Mounted:
    make_model(store, "m:v1", {"w.bin": os.urandom(3_000_000), "a/b.txt": b"text " * 5000}, executable=["a/b.txt"])
    return mounted(store, options=["--engine", request.param], own_process=True)


def test_the_same_tree(store: Path, mounted: Callable[..., Mounted]) -> None:
    make_model(store, "m:v1", {"w.bin": os.urandom(300_000), "a/b.txt": b"text " * 5000, "empty/": b""})
    make_model(store, "m:v2", {"x": b"x"}, executable=["x"])
    one, other = (mounted(store, options=["--engine", engine], own_process=True) for engine in ENGINES)
    assert everything(one.path) == everything(other.path)


def everything(root: Path) -> dict[str, tuple[object, ...]]:
    """Map each path to its attributes, and its bytes or its link target."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder, name)
            look = path.lstat()
            content: object = None
            if path.is_symlink():
                content = os.readlink(path)
            elif path.is_file():
                content = path.read_bytes()
            times = () if look.st_mtime > time.time() - 600 else (look.st_mtime_ns, look.st_ctime_ns)
            found[str(path.relative_to(root))] = (
                *(look.st_mode, look.st_nlink, look.st_uid, look.st_gid, look.st_size, look.st_blocks),
                *times,
                content if name != "README.txt" else None,
                look.st_ino if not path.is_relative_to(root / "incoming") else None,
            )
    assert len(found) > 40
    return found


def test_an_open_upload_that_was_removed(store: Path, mounted: Callable[..., Mounted]) -> None:
    """libfuse 2 has no answer to its `fstat`."""
    mount = mounted(store, options=["--engine", "kernel"], own_process=True)
    path = mount.path / "incoming" / ".x"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(file, b"12345")
    path.unlink()
    assert os.fstat(file).st_size == 5
    os.write(file, b"678")
    assert (os.fstat(file).st_size, os.fstat(file).st_nlink) == (8, 0)
    assert os.pread(file, 10, 0) == b"12345678"
    path.write_bytes(b"another")  # under the same name
    assert os.fstat(file).st_size == 8
    for flags in (os.O_RDONLY, os.O_RDWR | os.O_TRUNC):
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):  # neither file is opened by it
            os.open(f"/proc/self/fd/{file}", flags)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        os.truncate(f"/proc/self/fd/{file}", 1)
    os.ftruncate(file, 2)
    assert os.fstat(file).st_size == 2
    with pytest.raises(OSError, match=os.strerror(errno.ECANCELED)):
        os.close(file)
    assert path.read_bytes() == b"another"
    path.unlink()
    assert not path.exists()


def test_renamed_while_it_is_open(mount: Mounted) -> None:
    incoming = mount.path / "incoming"
    (incoming / "folder").mkdir()
    with (incoming / "folder" / ".x").open("wb+", buffering=0) as file:
        file.write(b"12345")
        (incoming / "folder").rename(incoming / "other")
        (incoming / "other" / ".x").rename(incoming / "other" / ".y")
        file.write(b"678")
        assert os.fstat(file.fileno()).st_size == 8
    assert (incoming / "other" / ".y").read_bytes() == b"12345678"
    assert os.listdir(incoming / "other") == [".y"]
    assert not (incoming / "folder").exists()


def test_rename_flags(mount: Mounted, tmp_path: Path) -> None:
    incoming = mount.path / "incoming"
    for name in (".a", ".b"):
        (incoming / name).write_bytes(name.encode())
    assert rename(incoming / ".a", incoming / ".b", RENAME_EXCHANGE) == errno.EINVAL
    assert rename(incoming / ".a", incoming / ".b", RENAME_NOREPLACE) == errno.EEXIST
    run("mv", "-n", incoming / ".a", incoming / ".c")
    assert (incoming / ".c").read_bytes() == b".a"
    assert rename(mount.archive("m:v1", ".tar"), incoming / "m.tar", 0) == errno.EXDEV
    assert rename(incoming / ".b", mount.path / "models" / "m.tar", 0) == errno.EROFS
    assert rename(incoming / ".b", tmp_path / "b", 0) == errno.EXDEV


def rename(old: Path, new: Path, flags: int) -> int:
    """Call renameat2(2). Return its errno, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags)
    return ctypes.get_errno() if failed else 0


def test_locks(mount: Mounted) -> None:
    """The kernel handles flock and POSIX locks, between processes of this machine."""
    upload = mount.path / "incoming" / ".locked"
    upload.touch()
    with upload.open("rb+") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert _other_locks(upload, "lockf") == "BlockingIOError"
        fcntl.lockf(file, fcntl.LOCK_UN)
        assert _other_locks(upload, "lockf") == "locked"
    with mount.archive("m:v1", ".tar").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert _other_locks(mount.archive("m:v1", ".tar"), "flock") == "BlockingIOError"


def _other_locks(path: Path, function: str) -> str:
    program = (
        "import fcntl, os, sys\n"
        f"file = os.open(sys.argv[1], os.O_RDWR if {function == 'lockf'} else os.O_RDONLY)\n"
        f"try:\n    fcntl.{function}(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n    print('locked')\n"
        "except OSError as error:\n    print(type(error).__name__)"
    )
    return run(sys.executable, "-c", program, path).stdout.strip()


def test_an_upload_is_not_mapped_to_be_written(mount: Mounted) -> None:
    path = mount.path / "incoming" / ".mapped"
    path.write_bytes(b"x" * 8192)
    with path.open("rb+") as file, pytest.raises(OSError, match=os.strerror(errno.ENODEV)):
        mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with mount.archive("m:v1", ".tar").open("rb") as file, pytest.raises(PermissionError):
        mmap.mmap(file.fileno(), 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def test_data_and_holes(mount: Mounted) -> None:
    """All is data, to its end."""
    path = mount.archive("m:v1", ".tar")
    with path.open("rb") as file:
        assert os.lseek(file.fileno(), 1000, os.SEEK_DATA) == 1000
        assert os.lseek(file.fileno(), 1000, os.SEEK_HOLE) == path.stat().st_size
        with pytest.raises(OSError, match=os.strerror(errno.ENXIO)):
            os.lseek(file.fileno(), path.stat().st_size, os.SEEK_DATA)


def test_listing_goes_on_while_names_are_removed(mount: Mounted) -> None:
    folder = mount.path / "incoming" / "many"
    folder.mkdir()
    for number in range(300):
        (folder / f".{number:04}-{'x' * 100}").touch()
    assert len(os.listdir(folder)) == 300
    run("rm", "-r", folder)
    assert not folder.exists()


def test_a_listing_that_is_begun_anew_is_a_new_one(mount: Mounted) -> None:
    """rewinddir(3) starts a new listing. `os.scandir` cannot rewind; an lseek of the directory can."""
    incoming = mount.path / "incoming"
    descriptor = os.open(incoming, os.O_RDONLY)
    try:
        assert os.listdir(descriptor) == []
        (incoming / ".x").touch()
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert os.listdir(descriptor) == [".x"]
    finally:
        os.close(descriptor)


def test_names_that_are_too_long(mount: Mounted) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        (mount.path / "incoming" / ("x" * 256)).touch()
    (mount.path / "incoming" / ("." + "x" * 254)).touch()
    folder = mount.path / "models" / "m"
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        (folder / ("x" * 256)).stat()
    with pytest.raises(FileNotFoundError):
        (folder / ("x" * 255)).stat()


def test_times_and_modes(mount: Mounted) -> None:
    path = mount.path / "incoming" / ".times"
    path.touch()
    os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    run("touch", "-a", path)
    assert path.stat().st_mtime_ns == 2_000_000_002
    path.chmod(0o755)
    assert path.stat().st_mode & 0o777 == 0o755
    run("chown", f"{os.getuid()}:{os.getgid()}", path)
    os.truncate(path, 5)
    assert path.read_bytes() == bytes(5)
    archive = mount.archive("m:v1", ".tar")
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        os.utime(archive)
    look = archive.stat()
    seen = run("stat", "--format", "%.9X %.9Y %.9Z %W", archive).stdout.split()  # by statx(2)
    expected = [look.st_mtime_ns, look.st_mtime_ns, look.st_ctime_ns]
    assert seen == [*(f"{time_ns // 10**9}.{time_ns % 10**9:09}" for time_ns in expected), "0"]  # no time of birth


def test_fallocate(mount: Mounted) -> None:
    """Mode 0 makes a file longer, without content: closing it says that bytes are missing. rsync keeps the size."""
    path = mount.path / "incoming" / "a.tar"
    mount.expect_log("never came")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x" * 100)
    assert fallocate(descriptor, 0, 0, 5000) == 0
    assert os.fstat(descriptor).st_size == 5000
    assert fallocate(descriptor, KEEP_SIZE, 0, 9000) == 0
    assert os.fstat(descriptor).st_size == 5000
    for mode in (PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE, COLLAPSE_RANGE):
        assert fallocate(descriptor, mode, 0, 4096) == errno.EOPNOTSUPP
    with pytest.raises(OSError, match=os.strerror(errno.EBADMSG)):
        os.close(descriptor)
    assert path.read_bytes() == b"x" * 100 + bytes(4900)
    with mount.archive("m:v1", ".tar").open("rb") as file:
        assert fallocate(file.fileno(), 0, 0, 5000) == errno.EBADF  # not open for writing


def fallocate(descriptor: int, mode: int, offset: int, length: int) -> int:
    """Call fallocate(2). Return its errno, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length))
    return ctypes.get_errno() if failed else 0


def test_a_copy_within_the_mount(mount: Mounted, tmp_path: Path) -> None:
    archive = made_tar(tmp_path, "n:v1", {"w": os.urandom(2_000_000)})
    run("cp", archive, mount.path / "incoming")
    run("cp", mount.archive("n:v1", ".zip"), mount.path / "incoming")  # unchanged: a success
    assert mount.shows("n:v1")


def test_by_default_nothing_of_libfuse_is_needed(store: Path, mounted: Callable[..., Mounted]) -> None:
    """fusepy fails at import if its library does not exist."""
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store, environment={"BENTOFS_ENGINE": "", "FUSE_LIBRARY_PATH": "/nonexistent"})
    assert mount.archive("m:v1", ".tar").read_bytes()
    assert json.loads((mount.path / ".bentofs" / "status.json").read_text())["engine"] == "kernel"


def test_an_old_kernel_with_a_new_fuse(store: Path, mounted: Callable[..., Mounted]) -> None:
    """Distributions add newer versions of FUSE to old kernels: the handshake decides, not the kernel's release."""
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store, options=["--engine", "kernel"], prefix=["setarch", "--uname-2.6"])
    assert mount.archive("m:v1", ".tar").read_bytes()
    mount.wait_for_log(r"Linux 2\.6\..* is older than 5\.4, .* mount with --engine libfuse2")


@pytest.mark.root
def test_root_needs_no_helper(store: Path, mounted: Callable[..., Mounted], tmp_path: Path) -> None:
    """Without fusermount3 and fusermount, mount(2) does it."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("umount", "setpriv"):
        (tools / name).symlink_to(str(shutil.which(name)))
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store, options=["--engine", "kernel"], environment={"PATH": str(tools)})
    assert mount.archive("m:v1", ".tar").read_bytes()


def test_the_store_is_named_in_the_table_of_mounts(tmp_path: Path, mounted: Callable[..., Mounted]) -> None:
    store = tmp_path / "a,b \\c" / "models"
    make_model(store, "m:v1", {"w": b"w"})
    mount = mounted(store, options=["--engine", "kernel"], own_process=True)
    found = run("findmnt", "--noheadings", "--raw", "--output", "SOURCE,FSTYPE", mount.path).stdout
    assert found.split() == [str(store).replace("\\", "\\x5c").replace(" ", "\\x20"), "fuse.bentofs"]


def test_a_program_started_by_nobody_we_know(mount: Mounted) -> None:
    """A reader in another process namespace works."""
    path = mount.archive("m:v1", ".tar")
    become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    found = run("unshare", *become_root, "--pid", "--fork", "sha256sum", path).stdout.split()[0]
    assert found == run("sha256sum", path).stdout.split()[0]


def test_an_unknown_engine_is_refused(store: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentofs.mount", "mount", str(tmp_path), "--store", str(store), "--engine", "fuse9"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "'fuse9' is not one of 'kernel', 'libfuse2'" in done.stderr
